import { type Ids, systemIds } from '@cloudphone/contracts/id'
import { type AnyTx, afterCommit, type Database, type Tx } from '@cloudphone/db/database'
import { DatabaseUnavailable } from '@cloudphone/db/errors'
import type { Executor } from '@cloudphone/db/executor'
import { type Listener, listener, type Notifier, notifier } from '@cloudphone/db/listen'
import { type Clock, systemClock } from '@cloudphone/observe/clock'
import { type CrashPoints, crashPoints } from '@cloudphone/observe/crash-point'
import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'
import { currentTraceparent } from '@cloudphone/observe/trace'
import type { Outbox } from '@cloudphone/outbox/outbox'
import { type ClaimOptions, claimAny, claimFree, nextDueInMs } from './claim.ts'
import { openCrew } from './crew.ts'
import { planOf } from './decide.ts'
import type { SagaDefinition, SagaStatus } from './definition.ts'
import { InvalidDefinition } from './errors.ts'
import { refuseMissing } from './known.ts'
import {
  type Reply,
  type ReplyFate,
  retryNow,
  type Skip,
  skipStep,
  type TurnBack,
  takeReply,
  turnSagaBack,
} from './operate.ts'
import { type Purged, purge } from './purge.ts'
import type { SagaRow } from './row.ts'
import type { Room } from './run.ts'
import { insertSaga, type StartedSaga, type StartSaga } from './start.ts'
import { openTelemetry } from './telemetry.ts'
import {
  countByStatus,
  countLive,
  definitionKey,
  type OverdueSaga,
  readOverdue,
  readPage,
  readView,
  type SagaQuery,
  type SagaView,
} from './view.ts'
import { openWaiting } from './waiting.ts'

/** The migrations that each service with sagas applies to its schema. */
export const SAGA_MIGRATIONS = new URL('../migrations/', import.meta.url)

export interface SagasOptions<Schema> {
  readonly database: Database<Schema>
  readonly executor: Executor
  /** All versions that may still have live rows. */
  readonly definitions: readonly SagaDefinition<never, Tx<Schema>>[]
  /** Where the commands of ask steps go. */
  readonly outbox?: Pick<Outbox, 'add'> | undefined
  readonly log: Logger
  readonly metrics: Metrics
  readonly crash?: CrashPoints
  /** Of step and saga deadlines; moves with the database's `app_now()`. */
  readonly clock?: Clock
  /** Of leases: measures processes, so a test moves it only to freeze one. */
  readonly realClock?: Clock
  readonly ids?: Ids
  readonly leaseTtlMs?: number
  /** Sagas in flight at a time in this process. */
  readonly concurrency?: number
  /** How often rows that nobody was woken for are looked for. */
  readonly sweepMs?: number
  /** A compensation could not be finished, a saga was quarantined, or one past the point of no return fails. */
  readonly onStuck?: (saga: {
    sagaId: string
    type: string
    alarm: 'stuck' | 'quarantined' | 'no_return'
  }) => void
}

export interface WaitOptions {
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
}

export interface Sagas extends AsyncDisposable {
  /**
   * Starts a saga in the caller's transaction: it exists exactly when that commits, and runs at once after it. The
   * same business key gives the first saga back (`created: false`). Throws `SagaKeyReused` for another input and
   * `OperationInProgress` while another saga about the same subject lives.
   */
  start<Input, Transaction>(tx: AnyTx, saga: StartSaga<Input, Transaction>): Promise<StartedSaga>
  /** Hands over the reply to an ask step, in the consumer's transaction. */
  reply(tx: AnyTx, reply: Reply): Promise<ReplyFate>
  /** One saga with its steps and timeline. */
  get(sagaId: string): Promise<SagaView | undefined>
  /** Newest first, by keyset. */
  list(query: SagaQuery): Promise<SagaView[]>
  /** Answers as soon as the saga has ended, or with where it stands after `timeoutMs` or when `signal` fires. */
  waitForEnd(sagaId: string, options: WaitOptions): Promise<SagaView | undefined>
  /** Answers as soon as the saga is no longer as it was at `since` (its `updatedAt` or `version`), else as `waitForEnd`. */
  waitForChange(
    sagaId: string,
    options: WaitOptions & { since: string | number },
  ): Promise<SagaView | undefined>
  /** An operator's: tries again at once. Audited. */
  retry(sagaId: string, actor: string): Promise<void>
  /** An operator's: gives a step up. Audited. */
  skip(skip: Skip): Promise<void>
  /** An operator's or a user's: compensates now. In the caller's transaction when given. Audited. */
  turnBack(request: TurnBack, tx?: AnyTx): Promise<void>
  countByStatus(): Promise<ReadonlyMap<SagaStatus, number>>
  /** Sagas that should have ended `graceMs` ago and are not visibly stuck: invariant 8. */
  overdue(options: { graceMs: number; limit: number }): Promise<OverdueSaga[]>
  /** Deletes a batch of what is past its keeping time: for a loop. */
  purge(): Promise<Purged>
  /** Begins to work. Throws `MissingDefinition` when live sagas need a definition that was not given. */
  run(): Promise<void>
  /** Resolves when nothing is due and nothing runs: for tests. Works with and without `run`. */
  drain(): Promise<void>
  /** Claims no more, lets running tries end for `graceMs` (default 3 s), cuts off the rest, gives all leases back. */
  stop(options?: { graceMs?: number }): Promise<void>
}

const LEASE_TTL_MS = 10_000
const CONCURRENCY = 64
const SWEEP_MS = 1_000
const STOP_GRACE_MS = 3_000
const DATABASE_RETRY_MS = 250

/** Opens the sagas of one service. Nothing runs before `run` (or `drain`). */
export function openSagas<Schema>(options: SagasOptions<Schema>): Sagas {
  const {
    database,
    executor,
    log,
    metrics,
    crash = crashPoints(undefined),
    clock = systemClock,
    realClock = systemClock,
    ids = systemIds,
    leaseTtlMs = LEASE_TTL_MS,
    concurrency = CONCURRENCY,
    sweepMs = SWEEP_MS,
  } = options
  const db = database.kysely
  const definitions = byKey(options.definitions)
  const plans = new Map([...definitions].map(([key, definition]) => [key, planOf(definition)]))
  const keys = [...definitions.keys()]
  const knownOf = (row: SagaRow) => {
    const key = definitionKey(row.type, row.defVersion)
    const definition = definitions.get(key)
    const plan = plans.get(key)
    if (definition === undefined || plan === undefined) {
      throw new InvalidDefinition(`Saga ${row.sagaId} needs the definition ${key}, which is not here`)
    }
    return { definition, plan }
  }
  const telemetry = openTelemetry({ log, metrics, countByStatus: () => countLive(db) })
  const channels = { due: `saga_due.${database.schema}`, moved: `saga_moved.${database.schema}` }
  const session = { url: database.directUrl, applicationName: `sagas of ${database.schema}`, log }
  const waiting = openWaiting({
    db,
    realClock,
    onError: (error) => log.debug({ event: 'saga.look_failed', err: error }),
  })
  const bell = openBell()
  const stopped = new AbortController()
  let wakeUps: Notifier | undefined
  let ear: Listener | undefined
  let looping: Promise<void>[] = []
  let lastSweepMs = Number.NEGATIVE_INFINITY
  const formerIds = new Set<string>()

  const ring = (channel: string): void => {
    wakeUps ??= notifier(session)
    wakeUps.notify(channel)
  }
  /** Other processes' moves are heard from the first wait or run on. */
  const listen = (): void => {
    ear ??= listener({
      ...session,
      channels: Object.values(channels),
      onNotify: (channel) => (channel === channels.due ? bell.ring() : waiting.look()),
    })
  }
  const changed = (sagaId: string): void => {
    waiting.moved(sagaId)
    ring(channels.moved)
  }
  const due = (sagaId: string): void => {
    changed(sagaId)
    bell.ring()
    ring(channels.due)
  }

  const room: Room<Schema> = {
    database,
    outbox: options.outbox,
    log,
    crash,
    clock,
    realClock,
    leaseTtlMs,
    telemetry,
    moved(row, decision) {
      changed(row.sagaId)
      if (decision.next.kind === 'wait') bell.ring()
      if (decision.alarm !== null) {
        options.onStuck?.({ sagaId: row.sagaId, type: row.type, alarm: decision.alarm })
      }
    },
  }
  // Set while there may be more due than hands: then, and only then, a free hand is worth a claim.
  let busy = false
  const crew = openCrew({ room, known: knownOf, onFree: () => busy && bell.ring() })

  /** Claims what fits; resolves with how many, and whether there may be more. */
  const claim = async (): Promise<{ claimed: number; full: boolean }> => {
    const free = concurrency - crew.size
    const identity = executor.current
    if (free <= 0 || identity === null || stopped.signal.aborted) return { claimed: 0, full: true }
    follow(identity)
    const askedMs = realClock.monotonicMs()
    const sweep = askedMs - lastSweepMs >= sweepMs
    const claimOptions: ClaimOptions = {
      executorId: identity.id,
      formerIds: [...formerIds],
      known: keys,
      limit: free,
      suspects: crew.suspects,
      leaseTtlMs,
    }
    const rows = await (sweep ? claimAny : claimFree)(db, claimOptions)
    if (sweep) lastSweepMs = askedMs
    for (const row of rows) crew.launch(row, { executorId: identity.id, askedMs })
    return { claimed: rows.length, full: rows.length >= free }
  }

  const followed = new WeakSet<AbortSignal>()
  const follow = ({ id, lost }: { id: string; lost: AbortSignal }): void => {
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

  /** Sleeps until the bell, the next sweep or the next due row; with full hands only until the bell or the sweep. */
  const rest = async (full: boolean): Promise<void> => {
    const dueInMs = full ? null : await nextDueInMs(db, keys)
    const over = new AbortController()
    const signal = AbortSignal.any([over.signal, stopped.signal])
    const naps = [bell.next(signal), realClock.sleep(sweepMs, signal)]
    if (dueInMs !== null) naps.push(clock.sleep(Math.ceil(dueInMs), signal))
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
        if (executor.current === null) await orStopped(executor.held(), stopped.signal)
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

  // Runs until the last run has ended, also while the claims have stopped.
  const heart = new AbortController()
  const beat = async (): Promise<void> => {
    while (!heart.signal.aborted) {
      await realClock.sleep(leaseTtlMs / 3, heart.signal).catch(() => undefined)
      await crew
        .keepLeases()
        .catch((error: unknown) => log.debug({ event: 'saga.renewal_failed', err: error }))
    }
  }

  const waitUntil = async (
    sagaId: string,
    { timeoutMs, signal }: WaitOptions,
    enough: (view: SagaView) => boolean,
  ): Promise<SagaView | undefined> => {
    listen()
    const over = new AbortController()
    const stop = AbortSignal.any([over.signal, stopped.signal, ...(signal ? [signal] : [])])
    const timedOut = clock.sleep(timeoutMs, stop).then(
      () => over.abort(),
      () => undefined, // woken before
    )
    try {
      for (;;) {
        const moved = waiting.next(sagaId, stop)
        const view = await readView(db, definitions, sagaId)
        if (view === undefined || view.endedAt !== null || enough(view) || stop.aborted) return view
        await moved
      }
    } finally {
      over.abort()
      await timedOut
    }
  }

  const planOfRow = (row: SagaRow) => knownOf(row).plan
  const operate = async (sagaId: string, work: (tx: Tx<Schema>) => Promise<void>): Promise<void> => {
    await database.transaction(work)
    due(sagaId)
  }

  const startBeat = (): void => {
    if (looping.length === 0) looping = [beat()]
  }

  let stopping: Promise<void> | undefined
  const stop = async (graceMs: number): Promise<void> => {
    stopped.abort(new Error('sagas are stopping'))
    crew.drain()
    const enough = new AbortController()
    const grace = realClock.sleep(graceMs, enough.signal).then(
      () => crew.abandonAll(new Error('sagas are stopping')),
      () => undefined, // all ended before
    )
    await crew.settled()
    enough.abort()
    await grace
    heart.abort()
    await Promise.all(looping)
    // What was given back is somebody else's now.
    ring(channels.due)
    await wakeUps?.drained()
    waiting.close()
    await ear?.close()
    await wakeUps?.close()
  }

  return {
    async start(tx, saga) {
      const started = await insertSaga(tx, saga, {
        newId: () => ids.next(),
        traceparent: currentTraceparent(),
      })
      if (started.created) {
        afterCommit(tx, () => {
          telemetry.started(saga.definition.type)
          due(started.sagaId)
        })
      }
      return started
    },
    async reply(tx, reply) {
      const fate = await takeReply(tx, reply)
      if (fate === 'accepted') afterCommit(tx, () => due(reply.sagaId))
      return fate
    },
    get: (sagaId) => readView(db, definitions, sagaId),
    list: (query) => readPage(db, definitions, query),
    waitForEnd: (sagaId, wait) => waitUntil(sagaId, wait, () => false),
    waitForChange: (sagaId, { since, ...wait }) =>
      waitUntil(
        sagaId,
        wait,
        (view) => (typeof since === 'number' ? view.version : view.updatedAt) !== since,
      ),
    retry: (sagaId, actor) => operate(sagaId, (tx) => retryNow(tx, { sagaId, actor })),
    skip: (skip) => operate(skip.sagaId, (tx) => skipStep(tx, skip, planOfRow)),
    async turnBack(request, tx) {
      if (tx === undefined) return operate(request.sagaId, (own) => turnSagaBack(own, request, planOfRow))
      await turnSagaBack(tx, request, planOfRow)
      afterCommit(tx, () => due(request.sagaId))
    },
    countByStatus: () => countByStatus(db),
    overdue: (query) => readOverdue(db, query),
    purge: () => purge(db),
    async run() {
      await refuseMissing(db, definitions)
      if (stopped.signal.aborted) throw new Error('Sagas have been stopped')
      listen()
      startBeat()
      looping.push(claimLoop())
    },
    async drain() {
      startBeat()
      await executor.held()
      for (;;) {
        // A look at everything, not only at what is free.
        lastSweepMs = Number.NEGATIVE_INFINITY
        const { claimed } = await claim()
        if (claimed === 0 && crew.size === 0) return
        await crew.settled()
      }
    },
    stop({ graceMs = STOP_GRACE_MS } = {}) {
      stopping ??= stop(graceMs)
      return stopping
    },
    [Symbol.asyncDispose]() {
      return this.stop()
    },
  }
}

function byKey<Schema>(
  definitions: readonly SagaDefinition<never, Tx<Schema>>[],
): Map<string, SagaDefinition<never, Tx<Schema>>> {
  const map = new Map<string, SagaDefinition<never, Tx<Schema>>>()
  for (const definition of definitions) {
    const key = definitionKey(definition.type, definition.version)
    if (map.has(key)) throw new InvalidDefinition(`Two saga definitions are ${key}`)
    map.set(key, definition)
  }
  return map
}

interface Bell {
  ring(): void
  clear(): void
  /** Resolves at the next ring, at once if it rang since `clear`, or when `signal` fires. */
  next(signal: AbortSignal): Promise<void>
}

function openBell(): Bell {
  let rung = Promise.withResolvers<void>()
  let ringing = false
  return {
    ring() {
      ringing = true
      rung.resolve()
    },
    clear() {
      if (!ringing) return
      ringing = false
      rung = Promise.withResolvers()
    },
    next: (signal) => Promise.race([rung.promise, whenAborted(signal)]),
  }
}

function whenAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

async function orStopped(work: Promise<unknown>, signal: AbortSignal): Promise<void> {
  await Promise.race([work, whenAborted(signal)])
}
