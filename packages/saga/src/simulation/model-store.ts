/* PostgreSQL's side of the port, as a model: what the statements of claim.ts and checkpoint.ts do to `saga_state`, with
 * row locks and transactions, in one process and on any clock. `store.contract.ts` holds both to the same behaviour. */
import type { Checkpoint } from '../checkpoint.ts'
import { SUSPECT_DEATHS } from '../claim.ts'
import type { LogEntry } from '../decide.ts'
import type { AskOutcome, SagaRow } from '../row.ts'
import type { ClaimOptions, SagaStore } from '../store.ts'

/** What a broken store leaves out: for tests that show that the simulation sees it. */
export type Weakness =
  | 'checkpoints ignore the fence'
  | 'checkpoints ignore the version'
  | 'claims ignore leases'
  | 'claims do not raise the fence'
  | 'effects survive a rollback'
  | 'giving back ignores the fence'
  | 'deaths are not counted'
  | 'deadlines do not wake'

export interface ModelDatabaseOptions {
  /** `app_now()` outside of a transaction. */
  readonly appNowMs: () => number
  /** `clock_timestamp()`: real time, for leases. */
  readonly realNowMs: () => number
  readonly weaknesses?: ReadonlySet<Weakness>
  /** Hears of every committed change of a row. */
  readonly onWrite?: (write: Write) => void
}

export interface Write {
  readonly by: 'start' | 'claim' | 'renew' | 'forgive' | 'give_back' | 'checkpoint' | 'reply'
  readonly before: ModelRow | undefined
  readonly after: ModelRow
  /** The row that a checkpoint was decided upon. */
  readonly basis: SagaRow | undefined
}

/** A row of `saga_state`; times in ms. */
export interface ModelRow
  extends Omit<
    SagaRow,
    'remainingMs' | 'replyDueInMs' | 'createdAt' | 'updatedAt' | 'startedAt' | 'endedAt' | 'timeoutAt'
  > {
  readonly createdAtMs: number
  readonly updatedAtMs: number
  readonly startedAtMs: number | null
  readonly endedAtMs: number | null
  readonly timeoutAtMs: number
  readonly nextRunAtMs: number
  readonly stepDeadlineMs: number | null
  readonly leaseOwner: string | null
  readonly leaseUntilMs: number | null
  readonly begunAtMs: number | null
  readonly deadExecutors: readonly string[]
}

export interface ModelLogEntry extends Omit<LogEntry, 'status'> {
  readonly sagaId: string
  readonly status: LogEntry['status'] | 'refused'
  readonly actor: string | null
  readonly executor: string | null
  readonly fence: number
}

/** A transaction of the model: what it writes is seen by others after `commit`, and never after `rollback`. */
export interface ModelTx {
  readonly id: number
  /** `app_now()` stands still in it. */
  readonly appNowMs: number
  isOpen: boolean
  readonly commits: (() => void)[]
  readonly rows: Map<string, ModelRow>
}

export interface NewSaga {
  readonly sagaId: string
  readonly type: string
  readonly defVersion: number
  readonly firstStep: string
  readonly timeoutMs: number
  readonly input: Record<string, unknown>
  readonly traceparent: string | null
}

const LIVE: ReadonlySet<string> = new Set(['RUNNING', 'COMPENSATING', 'COMPENSATION_STUCK'])
const FATAL_WITHIN_MS = 10_000

/** The tables. Every method is one statement: it happens at once and whole; who meets a locked row waits before it. */
export class ModelDatabase {
  readonly sagas = new Map<string, ModelRow>()
  readonly log: ModelLogEntry[] = []
  /** A table of the service beside its sagas: how often each key stands in it. */
  readonly things = new Map<string, number>()
  /** Ids whose session, and with it their advisory lock, lives. */
  readonly executors = new Set<string>()
  /** When the server was started. */
  bootedAtMs: number
  readonly #options: ModelDatabaseOptions
  readonly #weaknesses: ReadonlySet<Weakness>
  readonly #locks = new Map<string, ModelTx>()
  readonly #waiting = new Map<string, (() => void)[]>()
  #lastTxId = 0

  constructor(options: ModelDatabaseOptions) {
    this.#options = options
    this.#weaknesses = options.weaknesses ?? new Set()
    this.bootedAtMs = options.realNowMs() - 1
  }

  /** Inserts a saga, claimed from its first moment with `hold`; undefined when there is one with this id. */
  start(saga: NewSaga, hold?: { executorId: string; leaseTtlMs: number }): SagaRow | undefined {
    if (this.sagas.has(saga.sagaId)) return undefined
    const nowMs = this.#options.appNowMs()
    const realNowMs = this.#options.realNowMs()
    const row = this.#write('start', {
      sagaId: saga.sagaId,
      type: saga.type,
      defVersion: saga.defVersion,
      businessKey: saga.sagaId,
      subject: null,
      userId: null,
      tenantId: null,
      status: 'RUNNING',
      direction: 'do',
      currentStep: saga.firstStep,
      stepIndex: 0,
      undoIndex: null,
      attempt: 0,
      retryCount: 0,
      state: saga.input,
      errorMessage: null,
      errorCode: null,
      reply: null,
      stepDeadlineMs: null,
      nextRunAtMs: nowMs,
      timeoutAtMs: nowMs + saga.timeoutMs,
      leaseOwner: hold?.executorId ?? null,
      leaseUntilMs: hold === undefined ? null : realNowMs + hold.leaseTtlMs,
      fence: hold === undefined ? 0 : 1,
      begunAtMs: hold === undefined ? null : realNowMs,
      deaths: 0,
      deadExecutors: [],
      version: 1,
      traceparent: saga.traceparent,
      createdAtMs: nowMs,
      updatedAtMs: nowMs,
      startedAtMs: hold === undefined ? null : nowMs,
      endedAtMs: null,
    })
    return asRead(row, nowMs)
  }

  claim(from: 'free' | 'any', options: ClaimOptions): SagaRow[] {
    const { executorId, limit, suspects, leaseTtlMs } = options
    const appNowMs = this.#options.appNowMs()
    const realNowMs = this.#options.realNowMs()
    const due = [...this.sagas.values()]
      .filter((row) => this.#isClaimable(row, from, options))
      .sort((one, other) => one.nextRunAtMs - other.nextRunAtMs)
    const healthy = due.filter(({ deaths }) => deaths < SUSPECT_DEATHS).slice(0, limit)
    const suspected = due.filter(({ deaths }) => deaths >= SUSPECT_DEATHS).slice(0, suspects)
    const claimed = [...healthy, ...suspected].map((row) => {
      const dead = from === 'any' && this.#hasKilled(row, options) ? [row.leaseOwner ?? ''] : []
      return this.#write(
        'claim',
        {
          ...row,
          fence: row.fence + (this.#weaknesses.has('claims do not raise the fence') ? 0 : 1),
          leaseOwner: executorId,
          leaseUntilMs: realNowMs + leaseTtlMs,
          begunAtMs: realNowMs,
          deaths: row.deaths + dead.length,
          deadExecutors: [...row.deadExecutors, ...dead],
          startedAtMs: row.startedAtMs ?? appNowMs,
        },
        row,
      )
    })
    return claimed
      .sort((one, other) => one.nextRunAtMs - other.nextRunAtMs)
      .map((row) => asRead(row, appNowMs))
  }

  nextDueInMs(known: readonly string[]): number | null {
    const nowMs = this.#options.appNowMs()
    let dueInMs: number | null = null
    for (const row of this.sagas.values()) {
      if (!LIVE.has(row.status) || row.nextRunAtMs <= nowMs || row.leaseOwner !== null) continue
      if (!known.includes(`${row.type}:${row.defVersion}`)) continue
      dueInMs = Math.min(dueInMs ?? Number.POSITIVE_INFINITY, row.nextRunAtMs - nowMs)
    }
    return dueInMs
  }

  forgive(executorIds: readonly string[]): void {
    for (const row of [...this.sagas.values()]) {
      const deadExecutors = row.deadExecutors.filter((id) => !executorIds.includes(id))
      const forgiven = row.deadExecutors.length - deadExecutors.length
      if (!LIVE.has(row.status) || row.deaths === 0 || forgiven === 0 || this.#locks.has(row.sagaId)) continue
      this.#write('forgive', { ...row, deaths: Math.max(0, row.deaths - forgiven), deadExecutors }, row)
    }
  }

  renew({
    executorId,
    sagaIds,
    leaseTtlMs,
  }: {
    executorId: string
    sagaIds: readonly string[]
    leaseTtlMs: number
  }): Map<string, number> {
    const held = new Map<string, number>()
    for (const sagaId of sagaIds) {
      const row = this.sagas.get(sagaId)
      if (row === undefined || row.leaseOwner !== executorId || this.#locks.has(sagaId)) continue
      this.#write('renew', { ...row, leaseUntilMs: this.#options.realNowMs() + leaseTtlMs }, row)
      held.set(sagaId, row.fence)
    }
    return held
  }

  giveBack({ sagaId, fence, delayMs }: { sagaId: string; fence: number; delayMs: number }): void {
    const row = this.sagas.get(sagaId)
    if (row === undefined || row.leaseOwner === null) return
    if (row.fence !== fence && !this.#weaknesses.has('giving back ignores the fence')) return
    const nextRunAtMs = delayMs === 0 ? row.nextRunAtMs : this.#options.appNowMs() + delayMs
    this.#write('give_back', { ...row, leaseOwner: null, leaseUntilMs: null, nextRunAtMs }, row)
  }

  readHeld({
    sagaId,
    fence,
    executorId,
  }: {
    sagaId: string
    fence: number
    executorId: string
  }): SagaRow | undefined {
    const row = this.sagas.get(sagaId)
    if (row === undefined || row.fence !== fence || row.leaseOwner !== executorId) return undefined
    return asRead(row, this.#options.appNowMs())
  }

  /** As one statement of its own, or in `tx`, whose row lock it then takes until the transaction ends. */
  checkpoint(point: Checkpoint, tx?: ModelTx): SagaRow | undefined {
    const { sagaId, fence, version } = point.row
    const row = tx?.rows.get(sagaId) ?? this.sagas.get(sagaId)
    if (row === undefined || row.endedAtMs !== null) return undefined
    if (row.fence !== fence && !this.#weaknesses.has('checkpoints ignore the fence')) return undefined
    if (row.version !== version && !this.#weaknesses.has('checkpoints ignore the version')) return undefined
    const appNowMs = tx?.appNowMs ?? this.#options.appNowMs()
    const after = this.#moved(row, point, appNowMs)
    const entry = point.decision.entry
    const commit = (): void => {
      this.#write('checkpoint', after, row, point.row)
      if (entry === null) return
      this.log.push({ ...entry, sagaId, actor: point.actor ?? null, executor: point.executorId, fence })
    }
    if (tx === undefined) commit()
    else {
      this.#locks.set(sagaId, tx)
      tx.rows.set(sagaId, after)
      tx.commits.push(commit)
    }
    return asRead(after, appNowMs)
  }

  begin(): ModelTx {
    this.#lastTxId += 1
    return {
      id: this.#lastTxId,
      appNowMs: this.#options.appNowMs(),
      isOpen: true,
      commits: [],
      rows: new Map(),
    }
  }

  /** Counts `key` up or down in the table beside the sagas. */
  change(tx: ModelTx, key: string, by: 1 | -1): void {
    const write = (): void => {
      this.things.set(key, (this.things.get(key) ?? 0) + by)
    }
    if (this.#weaknesses.has('effects survive a rollback')) write()
    else tx.commits.push(write)
  }

  commit(tx: ModelTx): void {
    if (!tx.isOpen) throw new Error(`transaction ${tx.id} has ended`)
    tx.isOpen = false
    for (const commit of tx.commits) commit()
    this.#unlock(tx)
  }

  rollback(tx: ModelTx): void {
    tx.isOpen = false
    this.#unlock(tx)
  }

  /** Whether a statement of `tx`, or one of its own, would have to wait for another transaction's row lock. */
  isLocked(sagaId: string, tx?: ModelTx): boolean {
    const holder = this.#locks.get(sagaId)
    return holder !== undefined && holder !== tx
  }

  /** Resolves when nobody holds the row's lock. */
  async unlocked(sagaId: string, tx?: ModelTx): Promise<void> {
    while (this.isLocked(sagaId, tx)) {
      await new Promise<void>((resolve) => {
        this.#waiting.set(sagaId, [...(this.#waiting.get(sagaId) ?? []), resolve])
      })
    }
  }

  /** As `takeReply` of operate.ts. */
  reply(sagaId: string, step: string, outcome: AskOutcome): 'accepted' | 'duplicate' | 'late' | 'unknown' {
    const row = this.sagas.get(sagaId)
    if (row === undefined) return 'unknown'
    const waits = row.status === 'RUNNING' && row.currentStep === step && row.stepDeadlineMs !== null
    if (waits && row.reply !== null) return 'duplicate'
    if (!waits) {
      const answered = this.log.some(
        (entry) =>
          entry.sagaId === sagaId &&
          entry.step === step &&
          entry.direction === 'do' &&
          (entry.status === 'done' || entry.status === 'refused'),
      )
      if (answered) return 'duplicate'
      const error = outcome.ok ? 'late reply: done' : `late reply: ${outcome.error.message}`
      this.log.push({
        sagaId,
        step,
        direction: row.direction,
        attempt: row.attempt + 1,
        status: 'refused',
        error,
        actor: null,
        executor: null,
        fence: row.fence,
      })
      return 'late'
    }
    const nowMs = this.#options.appNowMs()
    const version = row.version + 1
    this.#write('reply', { ...row, reply: outcome, nextRunAtMs: nowMs, version, updatedAtMs: nowMs }, row)
    return 'accepted'
  }

  #isClaimable(row: ModelRow, from: 'free' | 'any', { known }: ClaimOptions): boolean {
    if (!LIVE.has(row.status) || row.nextRunAtMs > this.#options.appNowMs()) return false
    if (!known.includes(`${row.type}:${row.defVersion}`) || this.#locks.has(row.sagaId)) return false
    if (row.leaseOwner === null) return true
    if (from === 'free') return this.#weaknesses.has('claims ignore leases')
    const hasRunOut = (row.leaseUntilMs ?? 0) < this.#options.realNowMs()
    return hasRunOut || !this.executors.has(row.leaseOwner) || this.#weaknesses.has('claims ignore leases')
  }

  #hasKilled(row: ModelRow, { formerIds, leaseTtlMs }: ClaimOptions): boolean {
    if (row.leaseOwner === null || this.executors.has(row.leaseOwner)) return false
    if (formerIds.includes(row.leaseOwner) || row.begunAtMs === null) return false
    if (this.#weaknesses.has('deaths are not counted')) return false
    const lastAliveMs = (row.leaseUntilMs ?? 0) - leaseTtlMs
    const fatalMs = Math.max(1_000, FATAL_WITHIN_MS - leaseTtlMs / 3)
    return lastAliveMs <= row.begunAtMs + fatalMs && this.bootedAtMs < row.begunAtMs
  }

  #moved(row: ModelRow, point: Checkpoint, appNowMs: number): ModelRow {
    const { to, next, result } = point.decision
    const release = point.release || next.kind !== 'go_on'
    const ended = to.status === 'COMPLETED' || to.status === 'COMPENSATED'
    const replyWithinMs = next.kind === 'wait' ? next.replyWithinMs : null
    const realNowMs = this.#options.realNowMs()
    return {
      ...row,
      ...to,
      currentStep: point.currentStep,
      state: result === null ? row.state : { ...row.state, ...result },
      reply: null,
      stepDeadlineMs: replyWithinMs === null ? null : appNowMs + replyWithinMs,
      nextRunAtMs: this.#nextRunAtMs(row, next, appNowMs),
      leaseOwner: release ? null : row.leaseOwner,
      leaseUntilMs: release || row.leaseOwner === null ? null : realNowMs + point.leaseTtlMs,
      begunAtMs: realNowMs,
      deaths: 0,
      deadExecutors: [],
      endedAtMs: ended ? appNowMs : null,
      version: row.version + 1,
      updatedAtMs: appNowMs,
    }
  }

  #nextRunAtMs(row: ModelRow, next: Checkpoint['decision']['next'], appNowMs: number): number {
    if (next.kind !== 'wait') return row.nextRunAtMs
    const dueAtMs = appNowMs + next.delayMs
    if (!next.untilTimeout || this.#weaknesses.has('deadlines do not wake')) return dueAtMs
    return Math.min(dueAtMs, row.timeoutAtMs)
  }

  #write(by: Write['by'], after: ModelRow, before?: ModelRow, basis?: SagaRow): ModelRow {
    this.sagas.set(after.sagaId, after)
    this.#options.onWrite?.({ by, before, after, basis })
    return after
  }

  #unlock(tx: ModelTx): void {
    for (const sagaId of tx.rows.keys()) {
      if (this.#locks.get(sagaId) !== tx) continue
      this.#locks.delete(sagaId)
      const waiting = this.#waiting.get(sagaId) ?? []
      this.#waiting.delete(sagaId)
      for (const go of waiting) go()
    }
  }
}

/** The model behind the engine's port, without a network in between. */
export function modelStore(database: ModelDatabase): SagaStore<ModelTx> {
  return {
    claimFree: async (options) => database.claim('free', options),
    claimAny: async (options) => database.claim('any', options),
    nextDueInMs: async (known) => database.nextDueInMs(known),
    renew: async (leases) => database.renew(leases),
    forgive: async (executorIds) => database.forgive(executorIds),
    async giveBack(lease) {
      await database.unlocked(lease.sagaId)
      database.giveBack(lease)
    },
    readHeld: async (lease) => database.readHeld(lease),
    async checkpoint(point) {
      await database.unlocked(point.row.sagaId)
      return database.checkpoint(point)
    },
    async checkpointIn(tx, point) {
      await database.unlocked(point.row.sagaId, tx)
      return database.checkpoint(point, tx)
    },
    async transaction(work) {
      const tx = database.begin()
      try {
        const result = await work(tx)
        database.commit(tx)
        return result
      } catch (error) {
        database.rollback(tx)
        throw error
      }
    },
  }
}

/** A row as a statement at `appNowMs` gives it. */
function asRead(row: ModelRow, appNowMs: number): SagaRow {
  const { createdAtMs, updatedAtMs, startedAtMs, endedAtMs, timeoutAtMs, stepDeadlineMs } = row
  return {
    sagaId: row.sagaId,
    type: row.type,
    defVersion: row.defVersion,
    businessKey: row.businessKey,
    subject: row.subject,
    userId: row.userId,
    tenantId: row.tenantId,
    status: row.status,
    direction: row.direction,
    currentStep: row.currentStep,
    stepIndex: row.stepIndex,
    undoIndex: row.undoIndex,
    attempt: row.attempt,
    retryCount: row.retryCount,
    state: { ...row.state },
    errorMessage: row.errorMessage,
    errorCode: row.errorCode,
    reply: row.reply,
    fence: row.fence,
    version: row.version,
    deaths: row.deaths,
    traceparent: row.traceparent,
    createdAt: new Date(createdAtMs),
    updatedAt: new Date(updatedAtMs),
    startedAt: startedAtMs === null ? null : new Date(startedAtMs),
    endedAt: endedAtMs === null ? null : new Date(endedAtMs),
    timeoutAt: new Date(timeoutAtMs),
    remainingMs: timeoutAtMs - appNowMs,
    replyDueInMs: stepDeadlineMs === null ? null : stepDeadlineMs - appNowMs,
  }
}
