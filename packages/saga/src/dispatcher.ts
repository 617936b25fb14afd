import { DatabaseUnavailable } from '@cloudphone/db/errors'
import type { Executor, ExecutorIdentity } from '@cloudphone/db/executor'
import { openBell, whenAborted } from './bell.ts'
import { type Known, openCrew } from './crew.ts'
import type { SagaRow } from './row.ts'
import type { Room } from './run.ts'

/** Finds due sagas and hands them to the crew. */
export interface Dispatcher {
  /** Something may be due. */
  wake(): void
  run(): void
  drain(): Promise<void>
  stop(graceMs: number): Promise<void>
}

export interface DispatcherOptions<Transaction> {
  readonly room: Room<Transaction>
  readonly executor: Executor
  /** `type:version` of each definition. */
  readonly keys: readonly string[]
  readonly knownOf: (row: SagaRow) => Known<Transaction>
  readonly concurrency: number
  readonly sweepMs: number
}

const DATABASE_RETRY_MS = 250
/** Effects that do not heed their signal are left behind. */
const ABANDON_WAIT_MS = 1_500
/** A timer of more than 2^31 ms would fire at once. */
const MAX_NAP_MS = 3_600_000

export function openDispatcher<Transaction>(options: DispatcherOptions<Transaction>): Dispatcher {
  const { room, executor, keys, knownOf, concurrency, sweepMs } = options
  const { store, log, clock, realClock, leaseTtlMs } = room
  const bell = openBell()
  const stopped = new AbortController()
  // Beats until the last run has ended, also while nothing is claimed any more.
  const heart = new AbortController()
  const formerIds = new Set<string>()
  const followed = new WeakSet<AbortSignal>()
  let loops: Promise<void>[] = []
  let lastSweepMs = Number.NEGATIVE_INFINITY
  let claiming: Promise<unknown> = Promise.resolve()
  // Set while there may be more due than hands: then, and only then, a free hand is worth a claim.
  let busy = false
  const crew = openCrew({ room, known: knownOf, onFree: () => busy && bell.ring() })

  const follow = ({ id, lost }: ExecutorIdentity): void => {
    if (followed.has(lost)) return
    followed.add(lost)
    const gone = (): void => {
      formerIds.add(id)
      crew.abandon(id, new Error('the connection behind the leases is lost'))
      bell.ring()
    }
    if (lost.aborted) gone()
    else lost.addEventListener('abort', gone, { once: true })
  }

  const claimNow = async (): Promise<{ claimed: number; full: boolean }> => {
    const free = concurrency - crew.size
    const identity = executor.current
    if (free <= 0 || identity === null || stopped.signal.aborted) return { claimed: 0, full: true }
    follow(identity)
    const askedMs = realClock.monotonicMs()
    const sweep = askedMs - lastSweepMs >= sweepMs
    const rows = await (sweep ? store.claimAny : store.claimFree)({
      executorId: identity.id,
      formerIds: [...formerIds],
      known: keys,
      limit: free,
      suspects: crew.suspects,
      leaseTtlMs,
    })
    if (sweep) lastSweepMs = askedMs
    for (const row of rows) crew.launch(row, { executorId: identity.id, askedMs })
    return { claimed: rows.length, full: rows.length >= free }
  }
  /** One at a time, so that whoever finds nothing to claim knows that all claimed rows are with the crew. */
  const claim = (): Promise<{ claimed: number; full: boolean }> => {
    const result = claiming.then(claimNow)
    claiming = result.catch(() => undefined) // its caller hears of it
    return result
  }

  /** Sleeps until the bell, the next sweep or the next due row; with full hands only until the bell or the sweep. */
  const rest = async (full: boolean): Promise<void> => {
    const dueInMs = full ? null : await store.nextDueInMs(keys)
    const over = new AbortController()
    const signal = AbortSignal.any([over.signal, stopped.signal])
    const naps = [bell.next(signal), realClock.sleep(sweepMs, signal)]
    if (dueInMs !== null) naps.push(clock.sleep(Math.min(Math.ceil(dueInMs), MAX_NAP_MS), signal))
    try {
      await Promise.race(naps)
    } finally {
      over.abort()
      await Promise.allSettled(naps)
    }
  }

  const claimLoop = async (): Promise<void> => {
    while (!stopped.signal.aborted) {
      try {
        bell.clear()
        if (executor.current === null) await Promise.race([executor.held(), whenAborted(stopped.signal)])
        const { full } = await claim()
        busy = full
        await rest(full)
      } catch (error) {
        if (stopped.signal.aborted) return
        const event = 'saga.claim_failed'
        if (error instanceof DatabaseUnavailable) log.debug({ event, err: error })
        else log.error({ event, err: error })
        await realClock.sleep(DATABASE_RETRY_MS, stopped.signal).catch(() => undefined)
      }
    }
  }

  /** Trust is checked by its own beat: a database that does not answer must not delay the end of it. */
  const watchTrust = async (): Promise<void> => {
    while (!heart.signal.aborted) {
      crew.checkTrust()
      await realClock.sleep(leaseTtlMs / 15, heart.signal).catch(() => undefined)
    }
  }
  const renewLeases = async (): Promise<void> => {
    while (!heart.signal.aborted) {
      await realClock.sleep(leaseTtlMs / 3, heart.signal).catch(() => undefined)
      try {
        await crew.renewLeases()
      } catch (error) {
        log.debug({ event: 'saga.renewal_failed', err: error })
      }
    }
  }
  const startHeart = (): void => {
    if (loops.length === 0) loops = [watchTrust(), renewLeases()]
  }

  return {
    wake: bell.ring,
    run() {
      if (stopped.signal.aborted) throw new Error('Sagas have been stopped')
      startHeart()
      loops.push(claimLoop())
    },
    async drain() {
      startHeart()
      await executor.held()
      for (;;) {
        // A look at everything, not only at what is free.
        lastSweepMs = Number.NEGATIVE_INFINITY
        const { claimed } = await claim()
        if (claimed === 0 && crew.size === 0) return
        await crew.settled()
      }
    },
    async stop(graceMs) {
      const reason = new Error('sagas are stopping')
      stopped.abort(reason)
      await claiming
      crew.drain()
      const enough = new AbortController()
      const patience = realClock.sleep(graceMs, enough.signal).then(
        () => {
          crew.abandonAll(reason)
          return realClock.sleep(ABANDON_WAIT_MS, enough.signal).catch(() => undefined)
        },
        () => undefined, // all ended before
      )
      await Promise.race([crew.settled(), patience])
      enough.abort()
      heart.abort()
      await Promise.all(loops)
    },
  }
}
