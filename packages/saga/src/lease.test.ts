import { randomUUID } from 'node:crypto'
import { systemClock } from '@cloudphone/observe/clock'
import { expect, test } from 'vitest'
import { saga } from './builder.ts'
import { writeCheckpoints } from './checkpoint.ts'
import { claimAny, claimFree } from './claim.ts'
import { decide, planOf } from './decide.ts'
import { MissingDefinition } from './errors.ts'
import { toySaga } from './testing/toy.ts'
import { begin, openWorkshop, rowOf, type WorldTx } from './testing/workshop.ts'

interface Input {
  readonly name: string
}

const twoSteps = saga('two_steps', 1, { timeoutMs: 600_000 })
  .input<Input, WorldTx>()
  .local('FIRST', async () => undefined)
  .local('SECOND', async () => undefined)
  .end()

test('a checkpoint under an old fence, or of an old version, is refused and leaves no trace', async () => {
  await using workshop = await openWorkshop()
  const { sagas } = await workshop.engine({ definitions: [twoSteps] })
  const sagaId = await begin(workshop, sagas, twoSteps, { input: { name: 'a' } })
  const db = workshop.database.kysely
  const claim = { known: ['two_steps:1'], formerIds: [], limit: 10, suspects: 1, leaseTtlMs: 10_000 }
  const [zombie] = await claimFree(db, { ...claim, executorId: 'nobody-1' })
  // Its executor holds no lock, so it can be taken over at once.
  const [owner] = await claimAny(db, { ...claim, executorId: 'nobody-2' })
  if (zombie === undefined || owner === undefined) throw new Error('not claimed')
  expect([zombie.fence, owner.fence]).toEqual([1, 2])
  const point = (row: typeof owner) => ({
    row,
    decision: decide(row, planOf(twoSteps), { kind: 'done' }),
    currentStep: 'SECOND',
    executorId: 'whoever',
    leaseTtlMs: 10_000,
    tookMs: 1,
    release: false,
  })
  const before = await rowOf(workshop, sagaId)
  expect(await writeCheckpoints(db, [point(zombie)])).toEqual([undefined])
  expect(await rowOf(workshop, sagaId)).toEqual(before)
  expect((await sagas.get(sagaId))?.timeline).toEqual([])
  // The two in one batch, as in a process that has lost a saga and won it again.
  expect(await writeCheckpoints(db, [point(zombie), point(owner)])).toMatchObject([
    undefined,
    { currentStep: 'SECOND', version: owner.version + 1, fence: owner.fence },
  ])
  // The same once more, as after a commit whose answer was lost: not applied twice.
  expect(await writeCheckpoints(db, [point(owner)])).toEqual([undefined])
  expect((await sagas.get(sagaId))?.timeline).toHaveLength(1)
})

test('trap 4: two engines share the work, and no effect happens twice', async () => {
  await using workshop = await openWorkshop()
  const definition = toySaga('shared', workshop.database)
  const options = { definitions: [definition], clock: systemClock, concurrency: 8 }
  const one = await workshop.engine(options)
  const other = await workshop.engine(options)
  await Promise.all([one.sagas.run(), other.sagas.run()])
  const ids = await Promise.all(
    Array.from({ length: 60 }, (_, index) =>
      begin(workshop, one.sagas, definition, { input: { fails: index % 3 === 0 }, businessKey: `k${index}` }),
    ),
  )
  // Waited for at the other one: it hears of what its neighbour has done.
  const views = await Promise.all(ids.map((id) => other.sagas.waitForEnd(id, { timeoutMs: 20_000 })))
  expect(views.filter((view) => view?.status === 'COMPLETED')).toHaveLength(40)
  expect(views.filter((view) => view?.status === 'COMPENSATED')).toHaveLength(20)
  const touches = await workshop.database.kysely.selectFrom('touches').select('key').execute()
  expect(touches).toHaveLength(40 * 2 + 20 * 4)
  expect(new Set(touches.map(({ key }) => key)).size).toBe(touches.length)
  const { rows } = await workshop.database.pool.query('select distinct fence from saga_state')
  expect(rows).toEqual([{ fence: 1 }])
})

test('trap 8: a version that this process does not know is left alone, and keeps it from starting', async () => {
  await using workshop = await openWorkshop()
  const newer = saga('two_steps', 2, { timeoutMs: 600_000 })
    .input<Input, WorldTx>()
    .local('ONLY', async () => undefined)
    .end()
  const old = await workshop.engine({ definitions: [twoSteps] })
  const both = await workshop.engine({ definitions: [twoSteps, newer] })
  const sagaId = await begin(workshop, both.sagas, newer, { input: { name: 'n' } })
  await old.sagas.drain()
  expect(await rowOf(workshop, sagaId)).toMatchObject({ fence: 0, status: 'RUNNING', lease_owner: null })
  await expect(old.sagas.run()).rejects.toThrow(MissingDefinition)
  await expect(old.sagas.run()).rejects.toThrow('two_steps version 2 is missing, 1 live at ONLY (step 0)')
  await both.sagas.drain()
  expect(await both.sagas.get(sagaId)).toMatchObject({ status: 'COMPLETED' })
  await old.sagas.run()
})

/** A call whose first try waits to be cut off, and whose next one succeeds. */
function interruptible(begun: () => void) {
  let tries = 0
  return saga('interruptible', 1, { timeoutMs: 600_000 })
    .input<Input, WorldTx>()
    .call('CALL', async (_s, { signal }) => {
      tries += 1
      if (tries > 1) return { tries }
      begun()
      await new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason), { once: true })
      })
      return { tries }
    })
    .end()
}

test('a lost connection costs the lease, not a retry, and is nobody’s death', async () => {
  await using workshop = await openWorkshop()
  const begun = Promise.withResolvers<void>()
  const definition = interruptible(() => begun.resolve())
  const { sagas, executor } = await workshop.engine({ definitions: [definition], sweepMs: 50 })
  const first = await executor.held()
  await sagas.run()
  const sagaId = await begin(workshop, sagas, definition, { input: { name: 'c' } })
  await begun.promise
  await workshop.database.pool.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
     where application_name = 'test executor' and datname = current_database()`,
  )
  expect(await sagas.waitForEnd(sagaId, { timeoutMs: 20_000 })).toMatchObject({
    status: 'COMPLETED',
    retryCount: 0,
  })
  expect((await executor.held()).id).not.toBe(first.id)
  expect(await rowOf(workshop, sagaId)).toMatchObject({ deaths: 0, state: { name: 'c', tries: 2 } })
})

test('stop lets a try end, and gives back what it cuts off; another process goes on at once', async () => {
  await using workshop = await openWorkshop()
  const begun = Promise.withResolvers<void>()
  const definition = interruptible(() => begun.resolve())
  const one = await workshop.engine({ definitions: [definition] })
  const other = await workshop.engine({ definitions: [definition], sweepMs: 3_600_000 })
  await one.sagas.run()
  const sagaId = await begin(workshop, one.sagas, definition, { input: { name: 's' } })
  await begun.promise
  await other.sagas.run()
  await one.sagas.stop({ graceMs: 50 })
  expect(await rowOf(workshop, sagaId)).not.toMatchObject({ lease_owner: one.executor.current?.id })
  expect(await other.sagas.waitForEnd(sagaId, { timeoutMs: 20_000 })).toMatchObject({
    status: 'COMPLETED',
    retryCount: 0,
  })
  expect(await rowOf(workshop, sagaId)).toMatchObject({ fence: 2, deaths: 0 })
})

test('a draining process ends its step and leaves the next one to others', async () => {
  await using workshop = await openWorkshop()
  const begun = Promise.withResolvers<void>()
  const go = Promise.withResolvers<void>()
  const definition = saga('draining', 1, { timeoutMs: 600_000 })
    .input<Input, WorldTx>()
    .call('FIRST', async () => {
      begun.resolve()
      await go.promise
    })
    .local('SECOND', async () => undefined)
    .end()
  const one = await workshop.engine({ definitions: [definition] })
  await one.sagas.run()
  const sagaId = await begin(workshop, one.sagas, definition, { input: { name: randomUUID() } })
  await begun.promise
  const stopped = one.sagas.stop()
  go.resolve()
  await stopped
  expect(await rowOf(workshop, sagaId)).toMatchObject({
    status: 'RUNNING',
    current_step: 'SECOND',
    lease_owner: null,
  })
  const other = await workshop.engine({ definitions: [definition] })
  await other.sagas.drain()
  expect(await other.sagas.get(sagaId)).toMatchObject({ status: 'COMPLETED' })
})
