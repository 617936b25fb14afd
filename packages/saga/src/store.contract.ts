/* What the engine relies on wherever sagas are kept. PostgreSQL answers to it, and so does the model of the simulation: what
 * is proved over the model is proved for what the engine meets. */
import { describe, expect, test } from 'vitest'
import type { Checkpoint } from './checkpoint.ts'
import { decide, type Outcome, type Plan } from './decide.ts'
import type { ReplyFate } from './operate.ts'
import type { AskOutcome, SagaRow } from './row.ts'
import type { ClaimOptions, SagaStore } from './store.ts'

/** The saga of the contract: two steps, the second under a point of no return only where a test says so. */
export const CONTRACT_SAGA = {
  type: 'contract',
  version: 1,
  steps: ['FIRST', 'SECOND'],
  timeoutMs: 60_000,
} as const

/** What stands in a store, by other means than the port. */
export interface StoredSaga {
  readonly status: string
  readonly fence: number
  readonly version: number
  readonly deaths: number
  readonly leaseOwner: string | null
  readonly state: Record<string, unknown>
  /** From now on, by the clock of deadlines; negative when it has passed. */
  readonly nextRunInMs: number
}

export interface StoredEntry {
  readonly step: string
  readonly direction: string
  readonly attempt: number
  readonly status: string
  readonly error: string | null
  readonly executor: string | null
  readonly fence: number
}

/** A store with what a test needs beside the port. */
export interface StoreHarness<Transaction> extends AsyncDisposable {
  readonly store: SagaStore<Transaction>
  /** Starts a saga of `CONTRACT_SAGA`, due now, with an empty input. */
  start(): Promise<string>
  reply(sagaId: string, step: string, outcome: AskOutcome): Promise<ReplyFate>
  /** A process that lives until `die`. */
  openExecutor(): Promise<{ readonly id: string; die(): Promise<void> }>
  /** Moves the clock of deadlines, not that of leases. */
  advance(ms: number): Promise<void>
  read(sagaId: string): Promise<StoredSaga>
  log(sagaId: string): Promise<StoredEntry[]>
  /** An effect of a step in its transaction, and what is there of all. */
  put(tx: Transaction, key: string): Promise<void>
  things(): Promise<string[]>
}

const LEASE_MS = 60_000
const plan: Plan = {
  steps: CONTRACT_SAGA.steps.map((name) => ({ name, undoable: true, delaysMs: [2_000, 90_000] })),
  pointOfNoReturn: CONTRACT_SAGA.steps.length,
}
const done: Outcome = { kind: 'done', result: { first: 1 } }
const failed: Outcome = { kind: 'failed', error: { message: 'busy', code: 'error', retryable: true } }

function claimBy(executorId: string, options: Partial<ClaimOptions> = {}): ClaimOptions {
  const known = [`${CONTRACT_SAGA.type}:${CONTRACT_SAGA.version}`]
  return { executorId, formerIds: [], known, limit: 10, suspects: 1, leaseTtlMs: LEASE_MS, ...options }
}

/** The checkpoint of an outcome, as the engine makes it. */
function pointOf(row: SagaRow, outcome: Outcome, options: Partial<Checkpoint> = {}): Checkpoint {
  const decision = decide(row, plan, outcome)
  return {
    row,
    decision,
    currentStep: plan.steps[decision.to.stepIndex]?.name ?? '',
    executorId: 'somebody',
    leaseTtlMs: LEASE_MS,
    tookMs: 1,
    release: false,
    ...options,
  }
}

function only(rows: readonly SagaRow[]): SagaRow {
  expect(rows).toHaveLength(1)
  return rows[0] ?? expect.unreachable('nothing was claimed')
}

/** Registers what every store must do. */
export function storeContract<Transaction>(
  name: string,
  open: () => Promise<StoreHarness<Transaction>>,
): void {
  describe(`${name}: claims`, () => claims(open))
  describe(`${name}: deaths`, () => deaths(open))
  describe(`${name}: checkpoints`, () => checkpoints(open))
  describe(`${name}: refused checkpoints`, () => refusals(open))
  describe(`${name}: transactions`, () => transactions(open))
  describe(`${name}: leases`, () => leases(open))
  describe(`${name}: timers and replies`, () => timers(open))
}

type Open<Transaction> = () => Promise<StoreHarness<Transaction>>

function claims<Transaction>(open: Open<Transaction>): void {
  test('what is due and free is claimed once, under the next fence', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const one = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(one.id)))
    expect(row).toMatchObject({ sagaId, fence: 1, version: 1, deaths: 0, stepIndex: 0, currentStep: 'FIRST' })
    expect(row.remainingMs).toBeGreaterThan(CONTRACT_SAGA.timeoutMs - 10_000)
    expect(row.replyDueInMs).toBeNull()
    expect(await store.claimFree(claimBy(one.id))).toEqual([])
    expect(await harness.read(sagaId)).toMatchObject({ leaseOwner: one.id, fence: 1, version: 1 })
  })

  test('what a living process holds is nobody else’s', async () => {
    await using harness = await open()
    await harness.start()
    const [one, other] = [await harness.openExecutor(), await harness.openExecutor()]
    only(await harness.store.claimFree(claimBy(one.id)))
    expect(await harness.store.claimFree(claimBy(other.id))).toEqual([])
    expect(await harness.store.claimAny(claimBy(other.id))).toEqual([])
  })

  test('a lease that ran out is claimable by the sweep only, also from a living process', async () => {
    await using harness = await open()
    await harness.start()
    const [one, other] = [await harness.openExecutor(), await harness.openExecutor()]
    only(await harness.store.claimFree(claimBy(one.id, { leaseTtlMs: 0 })))
    expect(await harness.store.claimFree(claimBy(other.id))).toEqual([])
    expect(only(await harness.store.claimAny(claimBy(other.id)))).toMatchObject({ fence: 2, deaths: 0 })
  })

  test('the lease of a dead process is claimable at once', async () => {
    await using harness = await open()
    await harness.start()
    const [one, other] = [await harness.openExecutor(), await harness.openExecutor()]
    only(await harness.store.claimFree(claimBy(one.id)))
    await one.die()
    expect(await harness.store.claimFree(claimBy(other.id))).toEqual([])
    expect(only(await harness.store.claimAny(claimBy(other.id)))).toMatchObject({ fence: 2 })
  })

  test('not more than asked for, the longest due first, and only known versions', async () => {
    await using harness = await open()
    const ids: string[] = []
    for (let nth = 0; nth < 3; nth += 1) {
      ids.push(await harness.start())
      await harness.advance(1_000)
    }
    const { id } = await harness.openExecutor()
    expect(
      await harness.store.claimFree(claimBy(id, { known: [`${CONTRACT_SAGA.type}:2`, 'other:1'] })),
    ).toEqual([])
    expect(await harness.store.claimFree(claimBy(id, { known: [] }))).toEqual([])
    const first = await harness.store.claimFree(claimBy(id, { limit: 2 }))
    expect(first.map(({ sagaId }) => sagaId)).toEqual(ids.slice(0, 2))
    const rest = await harness.store.claimAny(claimBy(id, { limit: 2 }))
    expect(rest.map(({ sagaId }) => sagaId)).toEqual(ids.slice(2))
  })

  test('what is not due, or has ended, is not claimed', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    await store.checkpoint(pointOf(row, failed))
    expect(await store.claimAny(claimBy(id))).toEqual([])
    await harness.advance(2_000)
    const again = only(await store.claimFree(claimBy(id)))
    const second = await store.checkpoint(pointOf(again, done))
    await store.checkpoint(pointOf(second!, done))
    expect(await harness.read(sagaId)).toMatchObject({ status: 'COMPLETED', leaseOwner: null })
    expect(await store.claimAny(claimBy(id))).toEqual([])
  })
}

/** Claims by process after process, each of which dies on it; answers the row as the last one found it. */
async function kill<Transaction>(harness: StoreHarness<Transaction>, times: number): Promise<void> {
  for (let nth = 0; nth < times; nth += 1) {
    const executor = await harness.openExecutor()
    only(await harness.store.claimAny(claimBy(executor.id)))
    await executor.die()
  }
}

function deaths<Transaction>(open: Open<Transaction>): void {
  test('each process that dies soon after it began counts, until the next checkpoint', async () => {
    await using harness = await open()
    const sagaId = await harness.start()
    await kill(harness, 2)
    const last = await harness.openExecutor()
    const row = only(await harness.store.claimAny(claimBy(last.id)))
    expect(row).toMatchObject({ deaths: 2, fence: 3 })
    expect(await harness.store.checkpoint(pointOf(row, done))).toMatchObject({ deaths: 0 })
    expect(await harness.read(sagaId)).toMatchObject({ deaths: 0 })
  })

  test('a lease that ran out, one’s own former session and a long life are no death', async () => {
    await using harness = await open()
    await harness.start()
    const one = await harness.openExecutor()
    only(await harness.store.claimFree(claimBy(one.id, { leaseTtlMs: 0 })))
    const two = await harness.openExecutor()
    expect(only(await harness.store.claimAny(claimBy(two.id)))).toMatchObject({ deaths: 0 })
    await two.die()
    const three = await harness.openExecutor()
    const row = only(await harness.store.claimAny(claimBy(three.id, { formerIds: [two.id] })))
    expect(row).toMatchObject({ deaths: 0 })
    // Its last renewal was half an hour after it began.
    await harness.store.renew({
      executorId: three.id,
      sagaIds: [row.sagaId],
      leaseTtlMs: LEASE_MS + 1_800_000,
    })
    await three.die()
    const four = await harness.openExecutor()
    expect(only(await harness.store.claimAny(claimBy(four.id)))).toMatchObject({ deaths: 0 })
  })

  test('a death that was only a lost session is taken back by the process that lives', async () => {
    await using harness = await open()
    const sagaId = await harness.start()
    await kill(harness, 1)
    const cut = await harness.openExecutor()
    only(await harness.store.claimAny(claimBy(cut.id)))
    await cut.die()
    const other = await harness.openExecutor()
    expect(only(await harness.store.claimAny(claimBy(other.id)))).toMatchObject({ deaths: 2 })
    await harness.store.forgive([cut.id, 'another'])
    expect(await harness.read(sagaId)).toMatchObject({ deaths: 1 })
    // Twice is once.
    await harness.store.forgive([cut.id])
    expect(await harness.read(sagaId)).toMatchObject({ deaths: 1, fence: 3 })
  })

  test('whoever has killed twice is claimed where there is room for a suspect, one at a time', async () => {
    await using harness = await open()
    await harness.start()
    await kill(harness, 2)
    const later = await harness.openExecutor()
    // Dead processes are noticed when they are taken over from.
    const suspect = only(await harness.store.claimAny(claimBy(later.id)))
    expect(suspect.deaths).toBe(2)
    await harness.store.giveBack({ sagaId: suspect.sagaId, fence: suspect.fence, delayMs: 0 })
    const healthy = await harness.start()
    const without = await harness.store.claimFree(claimBy(later.id, { suspects: 0 }))
    expect(without.map(({ sagaId }) => sagaId)).toEqual([healthy])
    // Beside a limit that is used up: suspects have a place of their own.
    const withOne = await harness.store.claimFree(claimBy(later.id, { limit: 0, suspects: 1 }))
    expect(withOne.map(({ sagaId }) => sagaId)).toEqual([suspect.sagaId])
  })
}

function checkpoints<Transaction>(open: Open<Transaction>): void {
  test('a step done moves the saga on, keeps its result and its lease, and is logged', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    const next = await store.checkpoint(pointOf(row, done))
    expect(next).toMatchObject({
      sagaId,
      status: 'RUNNING',
      currentStep: 'SECOND',
      stepIndex: 1,
      state: { first: 1 },
      fence: 1,
      version: 2,
      endedAt: null,
      reply: null,
    })
    expect(await harness.read(sagaId)).toMatchObject({ leaseOwner: id, version: 2, state: { first: 1 } })
    expect(await harness.log(sagaId)).toEqual([
      {
        step: 'FIRST',
        direction: 'do',
        attempt: 1,
        status: 'done',
        error: null,
        executor: 'somebody',
        fence: 1,
      },
    ])
  })

  test('a try that failed gives the lease back until its retry is due', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    expect(await store.checkpoint(pointOf(row, failed))).toMatchObject({ attempt: 1, retryCount: 1 })
    const stored = await harness.read(sagaId)
    expect(stored.leaseOwner).toBeNull()
    expect(stored.nextRunInMs).toBeGreaterThan(0)
    expect(stored.nextRunInMs).toBeLessThanOrEqual(2_000)
  })

  test('a wait ends at the saga’s deadline where it can still turn back, and only there', async () => {
    await using harness = await open()
    const { store } = harness
    const { id } = await harness.openExecutor()
    const waits = async (untilTimeout: boolean): Promise<number> => {
      const sagaId = await harness.start()
      const row = only(await store.claimFree(claimBy(id)))
      const point = pointOf(row, failed)
      const next = { kind: 'wait', delayMs: 90_000, untilTimeout, replyWithinMs: null } as const
      await store.checkpoint({ ...point, decision: { ...point.decision, next } })
      return (await harness.read(sagaId)).nextRunInMs
    }
    const until = await waits(true)
    expect(until).toBeGreaterThan(CONTRACT_SAGA.timeoutMs - 10_000)
    expect(until).toBeLessThanOrEqual(CONTRACT_SAGA.timeoutMs)
    const beyond = await waits(false)
    expect(beyond).toBeGreaterThan(80_000)
    expect(beyond).toBeLessThanOrEqual(90_000)
  })

  test('a process that stops gives the lease back with its checkpoint, and the saga is due', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    await store.checkpoint(pointOf(row, done, { release: true }))
    expect(await harness.read(sagaId)).toMatchObject({ leaseOwner: null })
    expect(only(await store.claimFree(claimBy(id)))).toMatchObject({ fence: 2, currentStep: 'SECOND' })
  })

  test('turned back, undone and ended: what is decided is what stands there', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    const refused: Outcome = { kind: 'failed', error: { message: 'no', code: 'invalid', retryable: false } }
    const back = await store.checkpoint(pointOf(row, refused))
    expect(back).toMatchObject({
      status: 'COMPENSATING',
      direction: 'undo',
      undoIndex: 0,
      errorMessage: 'no',
      errorCode: 'invalid',
    })
    const ended = await store.checkpoint(pointOf(back!, { kind: 'done' }))
    expect(ended).toMatchObject({ status: 'COMPENSATED', undoIndex: -1, version: 3 })
    expect(ended?.endedAt).toBeInstanceOf(Date)
    expect((await harness.log(sagaId)).map(({ direction, status }) => [direction, status])).toEqual([
      ['do', 'failed'],
      ['undo', 'done'],
    ])
  })
}

function refusals<Transaction>(open: Open<Transaction>): void {
  const expectUntouched = async (
    harness: StoreHarness<Transaction>,
    sagaId: string,
    write: () => Promise<unknown>,
  ): Promise<void> => {
    const [before, log] = [await harness.read(sagaId), await harness.log(sagaId)]
    expect(await write()).toBeUndefined()
    const { nextRunInMs: _then, ...rest } = before
    expect(await harness.read(sagaId)).toMatchObject(rest)
    expect(await harness.log(sagaId)).toEqual(log)
  }

  test('under a fence after which another was given out', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const [zombie, owner] = [await harness.openExecutor(), await harness.openExecutor()]
    const old = only(await store.claimFree(claimBy(zombie.id, { leaseTtlMs: 0 })))
    only(await store.claimAny(claimBy(owner.id)))
    await expectUntouched(harness, sagaId, () => store.checkpoint(pointOf(old, done)))
  })

  test('of a version that has moved on: a commit whose answer was lost counts once', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    await store.checkpoint(pointOf(row, done))
    await expectUntouched(harness, sagaId, () => store.checkpoint(pointOf(row, done)))
  })

  test('of a saga that has ended', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    const second = await store.checkpoint(pointOf(row, done))
    const ended = await store.checkpoint(pointOf(second!, done))
    const point = pointOf(second!, failed)
    await expectUntouched(harness, sagaId, () => store.checkpoint({ ...point, row: ended! }))
  })

  test('side by side: of two checkpoints of one row one counts', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    const written = await Promise.all([
      store.checkpoint(pointOf(row, done)),
      store.checkpoint(pointOf(row, done)),
    ])
    expect(written.filter((one) => one !== undefined)).toHaveLength(1)
    expect(await harness.log(sagaId)).toHaveLength(1)
  })
}

function transactions<Transaction>(open: Open<Transaction>): void {
  test('an effect and its checkpoint are committed together', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    const next = await store.transaction(async (tx) => {
      await harness.put(tx, 'effect')
      const next = await store.checkpointIn(tx, pointOf(row, done))
      // Nobody else sees it before the commit.
      expect(await harness.things()).toEqual([])
      expect(await harness.read(sagaId)).toMatchObject({ version: 1 })
      return next
    })
    expect(next).toMatchObject({ version: 2, currentStep: 'SECOND' })
    expect(await harness.things()).toEqual(['effect'])
    expect(await harness.read(sagaId)).toMatchObject({ version: 2, state: { first: 1 } })
    expect(await harness.log(sagaId)).toHaveLength(1)
  })

  test('what throws leaves neither, and its error is the caller’s', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    const work = store.transaction(async (tx) => {
      await harness.put(tx, 'effect')
      await store.checkpointIn(tx, pointOf(row, done))
      throw new Error('the hook failed')
    })
    await expect(work).rejects.toThrow('the hook failed')
    expect(await harness.things()).toEqual([])
    expect(await harness.read(sagaId)).toMatchObject({ version: 1, state: {} })
    expect(await harness.log(sagaId)).toEqual([])
  })

  test('a stale fence is refused in a transaction as well, which then rolls back', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const [zombie, owner] = [await harness.openExecutor(), await harness.openExecutor()]
    const old = only(await store.claimFree(claimBy(zombie.id, { leaseTtlMs: 0 })))
    only(await store.claimAny(claimBy(owner.id)))
    const work = store.transaction(async (tx) => {
      await harness.put(tx, 'effect')
      const next = await store.checkpointIn(tx, pointOf(old, done))
      if (next === undefined) throw new Error('refused')
    })
    await expect(work).rejects.toThrow('refused')
    expect(await harness.things()).toEqual([])
    expect(await harness.read(sagaId)).toMatchObject({ fence: 2, version: 1, leaseOwner: owner.id })
  })

  test('a row in a transaction is left out by claims and renewals, and waited for by other writes', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const [one, other] = [await harness.openExecutor(), await harness.openExecutor()]
    const row = only(await store.claimFree(claimBy(one.id, { leaseTtlMs: 0 })))
    const [read, go] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const committed = store.transaction(async (tx) => {
      const next = await store.checkpointIn(tx, pointOf(row, done))
      read.resolve()
      await go.promise
      return next
    })
    await read.promise
    expect(await store.claimAny(claimBy(other.id))).toEqual([])
    const renewed = await store.renew({ executorId: one.id, sagaIds: [sagaId], leaseTtlMs: LEASE_MS })
    expect([...renewed]).toEqual([])
    expect(await store.readHeld({ sagaId, fence: 1, executorId: one.id })).toMatchObject({ version: 1 })
    const late = store.checkpoint(pointOf(row, failed))
    const given = store.giveBack({ sagaId, fence: 1, delayMs: 0 })
    go.resolve()
    expect(await committed).toMatchObject({ version: 2 })
    expect(await late).toBeUndefined()
    await given
    expect(await harness.read(sagaId)).toMatchObject({ version: 2, leaseOwner: null })
  })
}

function leases<Transaction>(open: Open<Transaction>): void {
  test('renewals keep what is held, and say under which fence', async () => {
    await using harness = await open()
    const { store } = harness
    const ids = [await harness.start(), await harness.start(), await harness.start()]
    const [one, other] = [await harness.openExecutor(), await harness.openExecutor()]
    await store.claimFree(claimBy(one.id, { leaseTtlMs: 0 }))
    const [taken] = await store.claimAny(claimBy(other.id, { limit: 1 }))
    const renewed = await store.renew({ executorId: one.id, sagaIds: ids, leaseTtlMs: LEASE_MS })
    expect([...renewed.keys()].sort()).toEqual(ids.filter((id) => id !== taken?.sagaId).sort())
    expect([...renewed.values()]).toEqual([1, 1])
    // What was renewed has not run out any more.
    expect(await store.claimAny(claimBy(other.id))).toEqual([])
    expect((await store.renew({ executorId: one.id, sagaIds: [], leaseTtlMs: LEASE_MS })).size).toBe(0)
  })

  test('a lease is given back for others, at once or after a while', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    only(await store.claimFree(claimBy(id)))
    await store.giveBack({ sagaId, fence: 1, delayMs: 0 })
    expect(await harness.read(sagaId)).toMatchObject({ leaseOwner: null, version: 1 })
    only(await store.claimFree(claimBy(id)))
    await store.giveBack({ sagaId, fence: 2, delayMs: 3_000 })
    expect(await store.claimAny(claimBy(id))).toEqual([])
    await harness.advance(3_000)
    expect(only(await store.claimFree(claimBy(id)))).toMatchObject({ fence: 3 })
  })

  test('a fence that is no longer current gives nothing back', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const [zombie, owner] = [await harness.openExecutor(), await harness.openExecutor()]
    only(await store.claimFree(claimBy(zombie.id, { leaseTtlMs: 0 })))
    only(await store.claimAny(claimBy(owner.id)))
    await store.giveBack({ sagaId, fence: 1, delayMs: 5_000 })
    const stored = await harness.read(sagaId)
    expect(stored).toMatchObject({ leaseOwner: owner.id, fence: 2 })
    expect(stored.nextRunInMs).toBeLessThanOrEqual(0)
    await store.giveBack({ sagaId, fence: 2, delayMs: 0 })
    await store.giveBack({ sagaId, fence: 2, delayMs: 5_000 })
    expect((await harness.read(sagaId)).nextRunInMs).toBeLessThanOrEqual(0)
  })

  test('a saga is read by whoever holds it, and by nobody else', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    await store.checkpoint(pointOf(row, done))
    expect(await store.readHeld({ sagaId, fence: 1, executorId: id })).toMatchObject({
      version: 2,
      currentStep: 'SECOND',
      state: { first: 1 },
    })
    expect(await store.readHeld({ sagaId, fence: 2, executorId: id })).toBeUndefined()
    expect(await store.readHeld({ sagaId, fence: 1, executorId: 'another' })).toBeUndefined()
    await store.giveBack({ sagaId, fence: 1, delayMs: 0 })
    expect(await store.readHeld({ sagaId, fence: 1, executorId: id })).toBeUndefined()
  })
}

function timers<Transaction>(open: Open<Transaction>): void {
  const known = [`${CONTRACT_SAGA.type}:${CONTRACT_SAGA.version}`]

  test('the next due time is that of what nobody holds and is not due yet', async () => {
    await using harness = await open()
    const { store } = harness
    expect(await store.nextDueInMs(known)).toBeNull()
    await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    expect(await store.nextDueInMs(known)).toBeNull()
    await store.checkpoint(pointOf(row, failed))
    const dueInMs = await store.nextDueInMs(known)
    expect(dueInMs).toBeGreaterThan(0)
    expect(dueInMs).toBeLessThanOrEqual(2_000)
    expect(await store.nextDueInMs(['other:1'])).toBeNull()
    await harness.advance(2_000)
    // Due now: that is for a claim to find.
    expect(await store.nextDueInMs(known)).toBeNull()
  })

  test('the saga’s deadline passes by the clock of deadlines', async () => {
    await using harness = await open()
    await harness.start()
    const { id } = await harness.openExecutor()
    await harness.advance(CONTRACT_SAGA.timeoutMs)
    expect(only(await harness.store.claimFree(claimBy(id))).remainingMs).toBeLessThanOrEqual(0)
  })

  test('an ask waits for its reply until its own deadline', async () => {
    await using harness = await open()
    const { store } = harness
    await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    await store.checkpoint(pointOf(row, { kind: 'asked', withinMs: 5_000 }))
    expect(await store.claimAny(claimBy(id))).toEqual([])
    await harness.advance(5_000)
    const due = only(await store.claimFree(claimBy(id)))
    expect(due.reply).toBeNull()
    expect(due.replyDueInMs).toBeLessThanOrEqual(0)
    // A checkpoint that asks nothing ends the waiting.
    expect(await store.checkpoint(pointOf(due, failed))).toMatchObject({ replyDueInMs: null })
  })

  test('a reply makes the saga due, counts once, and is cleared by the next checkpoint', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    await store.checkpoint(pointOf(row, { kind: 'asked', withinMs: 5_000 }))
    const reply: AskOutcome = { ok: true, result: { answer: 42 } }
    expect(await harness.reply(sagaId, 'FIRST', reply)).toBe('accepted')
    expect(await harness.reply(sagaId, 'FIRST', reply)).toBe('duplicate')
    const due = only(await store.claimFree(claimBy(id)))
    expect(due).toMatchObject({ reply, version: 3 })
    expect(due.replyDueInMs).toBeGreaterThan(0)
    const next = await store.checkpoint(pointOf(due, { kind: 'done', result: { answer: 42 } }))
    expect(next).toMatchObject({ reply: null, replyDueInMs: null, state: { answer: 42 } })
    expect(await harness.reply(sagaId, 'FIRST', reply)).toBe('duplicate')
    expect((await harness.log(sagaId)).map(({ status }) => status)).toEqual(['asked', 'done'])
  })

  test('a reply that nobody waits for is refused, and the refusal is logged once', async () => {
    await using harness = await open()
    const sagaId = await harness.start()
    const refusal: AskOutcome = { ok: false, error: { message: 'no room' } }
    expect(await harness.reply(sagaId, 'FIRST', refusal)).toBe('late')
    expect(await harness.reply(sagaId, 'FIRST', refusal)).toBe('duplicate')
    expect(await harness.reply('nobody', 'FIRST', refusal)).toBe('unknown')
    expect(await harness.log(sagaId)).toMatchObject([
      {
        step: 'FIRST',
        direction: 'do',
        attempt: 1,
        status: 'refused',
        error: 'late reply: no room',
        executor: null,
      },
    ])
  })
}
