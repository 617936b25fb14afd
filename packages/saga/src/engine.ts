import { type Ids, systemIds } from '@cloudphone/contracts/id'
import { type AnyTx, afterCommit, type Database, type Tx } from '@cloudphone/db/database'
import type { Executor } from '@cloudphone/db/executor'
import { groupCommit } from '@cloudphone/db/group-commit'
import { type Clock, systemClock } from '@cloudphone/observe/clock'
import { type CrashPoints, crashPoints } from '@cloudphone/observe/crash-point'
import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'
import { currentTraceparent, type Tracer } from '@cloudphone/observe/trace'
import type { Outbox } from '@cloudphone/outbox/outbox'
import { planOf } from './decide.ts'
import type { SagaDefinition, SagaStatus } from './definition.ts'
import { type Offer, openDispatcher } from './dispatcher.ts'
import { InvalidDefinition } from './errors.ts'
import { openHints } from './hints.ts'
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
import { postgresStore } from './postgres-store.ts'
import { type Purged, purge } from './purge.ts'
import type { SagaRow } from './row.ts'
import type { Room } from './run.ts'
import {
  type Inserted,
  insertSaga,
  type Seed,
  type StartedSaga,
  type StartSaga,
  writeSeeds,
} from './start.ts'
import { startingTrace } from './step-span.ts'
import { openTelemetry } from './telemetry.ts'
import {
  countByStatus,
  countLive,
  definitionKey,
  type OverdueSaga,
  outcomeOf,
  readOutcome,
  readOverdue,
  readPage,
  readProgress,
  readView,
  type SagaOutcome,
  type SagaQuery,
  type SagaView,
} from './view.ts'
import { openWaiting, progressOf, type SagaProgress, waitUntil } from './waiting.ts'

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
  /** Undefined: tries of steps are no spans. */
  readonly tracer?: Tracer | undefined
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
  /**
   * As `start`, for callers who have nothing to commit with it: it exists when this resolves. Those that come together
   * share a commit. After a `DatabaseUnavailable` it may exist or not: the same business key tells.
   */
  startAlone<Input, Transaction>(saga: StartSaga<Input, Transaction>): Promise<StartedSaga>
  /** Hands over the reply to an ask step, in the consumer's transaction. */
  reply(tx: AnyTx, reply: Reply): Promise<ReplyFate>
  /** One saga with its steps and timeline. */
  get(sagaId: string): Promise<SagaView | undefined>
  /** Newest first, by keyset. */
  list(query: SagaQuery): Promise<SagaView[]>
  /** Answers as soon as the saga has ended, or with where it stands after `timeoutMs` or when `signal` fires. */
  waitForEnd(sagaId: string, options: WaitOptions): Promise<SagaView | undefined>
  /** As `waitForEnd`, without the timeline: what a caller needs that goes on with the result. */
  waitForOutcome(sagaId: string, options: WaitOptions): Promise<SagaOutcome | undefined>
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
  const waiting = openWaiting({
    db,
    clock,
    realClock,
    onError: (error) => log.debug({ event: 'saga.look_failed', err: error }),
  })
  const hints = openHints({
    database,
    log,
    realClock,
    onDue: () => dispatcher.wake(),
    onMoved: () => waiting.look(),
  })
  const stopped = new AbortController()
  let stopping: Promise<void> | undefined

  const moved = (sagaId: string, row?: SagaRow): void => {
    waiting.moved(sagaId, row && progressOf(row))
    hints.moved()
  }
  const due = (sagaId: string): void => {
    moved(sagaId)
    dispatcher.wake()
    hints.due()
  }
  const room: Room<Tx<Schema>> = {
    store: postgresStore(database),
    outbox: options.outbox,
    log,
    crash,
    clock,
    realClock,
    leaseTtlMs,
    telemetry,
    tracer: options.tracer,
    moved(row, { next, alarm }) {
      const { sagaId, type } = row
      moved(sagaId, row)
      if (next.kind === 'wait') dispatcher.wake(next.delayMs)
      if (alarm !== null) options.onStuck?.({ sagaId, type, alarm })
    },
  }
  const dispatcher = openDispatcher({ room, executor, keys, knownOf, concurrency, sweepMs })

  const wait = async (
    sagaId: string,
    { timeoutMs, signal }: WaitOptions,
    enough: (progress: SagaProgress) => boolean,
  ): Promise<SagaProgress | undefined> => {
    hints.listen()
    return waitUntil({
      sagaId,
      waiting,
      timeoutMs,
      signals: [stopped.signal, ...(signal ? [signal] : [])],
      read: () => readProgress(db, sagaId),
      enough,
      carried: dispatcher.carries(sagaId),
    })
  }
  const hasEnded = (progress: SagaProgress): boolean => progress.hasEnded
  const writeSeed = groupCommit((seeds: readonly Seed[]) => writeSeeds(database.prepared, seeds))
  const birth = (definition: { type: string }, offer: Offer | undefined) => ({
    newId: () => ids.next(),
    traceparent: currentTraceparent() ?? startingTrace(options.tracer, definition),
    hold: offer && { executorId: offer.executorId, leaseTtlMs },
  })
  const begun = (type: string, { sagaId, created, row }: Inserted, offer: Offer | undefined): void => {
    if (!created) return
    telemetry.started(type)
    if (row === undefined || offer === undefined) due(sagaId)
    else dispatcher.take(row, offer)
  }
  const planOfRow = (row: SagaRow) => knownOf(row).plan
  const operate = async (sagaId: string, work: (tx: Tx<Schema>) => Promise<void>): Promise<void> => {
    await database.transaction(work)
    due(sagaId)
  }
  const stop = async (graceMs: number): Promise<void> => {
    stopped.abort(new Error('sagas are stopping'))
    await dispatcher.stop(graceMs)
    // What was given back is somebody else's now.
    hints.due()
    waiting.close()
    await hints.close()
  }

  return {
    async start(tx, saga) {
      const offer = dispatcher.offer()
      const inserted = await insertSaga(tx, saga, {
        ...birth(saga.definition, offer),
        write: async (seed) => (await writeSeeds(tx, [seed]))[0],
      })
      afterCommit(tx, () => begun(saga.definition.type, inserted, offer))
      return { sagaId: inserted.sagaId, created: inserted.created }
    },
    async startAlone(saga) {
      const offer = dispatcher.offer()
      const inserted = await insertSaga(db, saga, { ...birth(saga.definition, offer), write: writeSeed })
      begun(saga.definition.type, inserted, offer)
      return { sagaId: inserted.sagaId, created: inserted.created }
    },
    async reply(tx, reply) {
      const fate = await takeReply(tx, reply)
      if (fate === 'accepted') afterCommit(tx, () => due(reply.sagaId))
      return fate
    },
    get: (sagaId) => readView(db, definitions, sagaId),
    list: (query) => readPage(db, definitions, query),
    async waitForEnd(sagaId, options) {
      await wait(sagaId, options, hasEnded)
      return readView(db, definitions, sagaId)
    },
    async waitForOutcome(sagaId, options) {
      const progress = await wait(sagaId, options, hasEnded)
      return progress?.row === undefined ? readOutcome(db, sagaId) : outcomeOf(progress.row)
    },
    async waitForChange(sagaId, { since, ...options }) {
      await wait(
        sagaId,
        options,
        (progress) =>
          progress.hasEnded || (typeof since === 'number' ? progress.version : progress.updatedAt) !== since,
      )
      return readView(db, definitions, sagaId)
    },
    retry: (sagaId, actor) => operate(sagaId, (tx) => retryNow(tx, { sagaId, actor }, planOfRow)),
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
      hints.listen()
      dispatcher.run()
    },
    drain: () => dispatcher.drain(),
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
