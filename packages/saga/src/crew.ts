/* The runs in the hands of this process: their leases, their abandonment, their end. */
import { inTrace } from '@cloudphone/observe/trace'
import { SUSPECT_DEATHS } from './claim.ts'
import { openDeadlines } from './deadlines.ts'
import type { Plan } from './decide.ts'
import type { SagaDefinition } from './definition.ts'
import { failureOf } from './errors.ts'
import type { SagaRow } from './row.ts'
import { type Room, type Run, runSaga, trustUntil } from './run.ts'

export interface Known<Transaction> {
  readonly definition: SagaDefinition<never, Transaction>
  readonly plan: Plan
}

export interface Crew {
  readonly size: number
  /** Room for sagas that may have killed their executor: they run one at a time. */
  readonly suspects: 0 | 1
  carries(sagaId: string): boolean
  /** `lost`: the connection behind the executor id is gone already. */
  launch(row: SagaRow, options: { executorId: string; askedMs: number; lost: boolean }): void
  /** Abandons the runs whose lease can no longer be trusted. */
  checkTrust(): void
  /** Renews the leases that are due for it. */
  renewLeases(): Promise<void>
  /** The connection behind this executor id is gone, and with it all that was claimed under it. */
  abandon(executorId: string, reason: unknown): void
  /** Lets current tries end; each then gives its lease back. */
  drain(): void
  /** Cuts all tries off. */
  abandonAll(reason: unknown): void
  /** Resolves when no run is left of those that there are now. */
  settled(): Promise<void>
  /** After the last run: no deadline is waited for any more. */
  close(): void
}

/** After an error that no step caused, such as a lost database. */
const TROUBLE_DELAY_MS = 1_000

export function openCrew<Transaction>({
  room,
  known,
  onFree,
}: {
  room: Room<Transaction>
  known: (row: SagaRow) => Known<Transaction>
  onFree: () => void
}): Crew {
  const { store, log, realClock, leaseTtlMs } = room
  const runs = new Map<Run<Transaction>, Promise<void>>()
  const deadlines = openDeadlines(room.clock)
  const carried = new Map<string, Run<Transaction>>()
  let draining = false

  const carry = async (run: Run<Transaction>): Promise<void> => {
    const { sagaId, fence } = run.row
    let delayMs = 0
    try {
      await runSaga(room, run)
    } catch (error) {
      delayMs = TROUBLE_DELAY_MS
      if (!run.abandon.signal.aborted) log.error({ event: 'saga.run_failed', err: error, sagaId })
    }
    if (run.abandon.signal.aborted) {
      const { reason } = run.abandon.signal
      log.info({ event: 'saga.abandoned', sagaId, fence, reason: failureOf(reason).message })
    }
    try {
      // Most runs have given their lease back with their last checkpoint; an abandoned one may still have it.
      if (delayMs > 0 || run.abandon.signal.aborted) await store.giveBack({ sagaId, fence, delayMs })
    } catch (error) {
      // Then it runs out by itself.
      log.warn({ event: 'saga.give_back_failed', err: error, sagaId })
    }
  }

  return {
    get size() {
      let size = 0
      for (const run of runs.keys()) if (!run.over) size += 1
      return size
    },
    get suspects() {
      return [...runs.keys()].some(({ row }) => row.deaths >= SUSPECT_DEATHS) ? 0 : 1
    },
    carries: (sagaId) => carried.has(sagaId),
    launch(row, { executorId, askedMs, lost }) {
      const run: Run<Transaction> = {
        row,
        executorId,
        ...known(row),
        deadlines,
        abandon: new AbortController(),
        trustUntilMs: trustUntil(askedMs, leaseTtlMs),
        draining: false,
        over: false,
      }
      carried.set(row.sagaId, run)
      if (lost || draining) run.abandon.abort(new Error('taken too late'))
      const running = inTrace(row.traceparent ?? undefined, () => carry(run)).finally(() => {
        runs.delete(run)
        if (carried.get(row.sagaId) === run) carried.delete(row.sagaId)
        onFree()
      })
      runs.set(run, running)
    },
    checkTrust() {
      const nowMs = realClock.monotonicMs()
      for (const run of runs.keys()) {
        if (nowMs >= run.trustUntilMs) run.abandon.abort(new Error('lease ran out'))
      }
    },
    renewLeases: () => renewLeases([...runs.keys()], { store, leaseTtlMs, realClock }),
    abandon(executorId, reason) {
      for (const run of runs.keys()) if (run.executorId === executorId) run.abandon.abort(reason)
    },
    drain() {
      draining = true
      for (const run of runs.keys()) run.draining = true
    },
    abandonAll(reason) {
      for (const run of runs.keys()) run.abandon.abort(reason)
    },
    close: deadlines.close,
    async settled() {
      await Promise.all(runs.values())
    },
  }
}

async function renewLeases<Transaction>(
  runs: readonly Run<Transaction>[],
  { store, leaseTtlMs, realClock }: Pick<Room<Transaction>, 'store' | 'leaseTtlMs' | 'realClock'>,
): Promise<void> {
  const nowMs = realClock.monotonicMs()
  // Quick sagas renew by their checkpoints; only those that linger cost a heartbeat.
  const due = runs.filter(
    (run) => !run.abandon.signal.aborted && run.trustUntilMs < trustUntil(nowMs, leaseTtlMs) - leaseTtlMs / 4,
  )
  for (const [executorId, own] of Map.groupBy(due, (run) => run.executorId)) {
    const sagaIds = own.map(({ row }) => row.sagaId)
    const askedMs = realClock.monotonicMs()
    const held = await store.renew({ executorId, sagaIds, leaseTtlMs })
    for (const run of own) {
      // A row that a checkpoint had locked was left out: it renews itself, or its trust ends in time.
      if (held.get(run.row.sagaId) === run.row.fence) run.trustUntilMs = trustUntil(askedMs, leaseTtlMs)
    }
  }
}
