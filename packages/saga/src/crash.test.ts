import { randomUUID } from 'node:crypto'
import { systemClock } from '@cloudphone/observe/clock'
import { describe, expect, test } from 'vitest'
import { crashAt, touchesOf } from './testing/crash-at.ts'
import { spawnWorker } from './testing/spawn-worker.ts'
import { toySaga, until } from './testing/toy.ts'
import { begin, openWorkshop, rowOf } from './testing/workshop.ts'

describe('trap 1: a process killed on the way is taken over by another, and nothing is lost, doubled or left behind', () => {
  // The others are in crash.drill.test.ts.
  test.concurrent.each(['after_claim', 'TAKE.after_effect'])('going forward, at %s', (place) =>
    crashAt(place, false),
  )
  test.concurrent.each(['TAKE.undo.before_effect'])('being undone, at %s', (place) => crashAt(place, true))
})

test('trap 5: a frozen process that wakes after its lease has lost the saga', async () => {
  await using workshop = await openWorkshop()
  const leaseTtlMs = 1_000
  const definition = toySaga('zombie', workshop.database)
  const { sagas } = await workshop.engine({
    definitions: [definition],
    clock: systemClock,
    leaseTtlMs,
    sweepMs: 100,
  })
  const waitsFor = randomUUID()
  const sagaId = await begin(workshop, sagas, definition, {
    input: { fails: false, waitsFor },
    businessKey: 'zombie',
  })
  await using worker = spawnWorker({ url: workshop.testDatabase.url, types: ['zombie'], leaseTtlMs })
  await until(async () => (await touchesOf(workshop, sagaId)).length === 1)
  worker.process.kill('SIGSTOP')
  await sagas.run()
  // Taken over only when the lease has run out: its lock is still held.
  await until(async () => (await touchesOf(workshop, sagaId)).length === 2)
  await workshop.database.kysely.insertInto('notes').values({ saga_id: sagaId, text: waitsFor }).execute()
  expect(await sagas.waitForEnd(sagaId, { timeoutMs: 20_000 })).toMatchObject({ status: 'COMPLETED' })
  const before = await rowOf(workshop, sagaId)
  worker.process.kill('SIGCONT')
  await worker.logged('saga.abandoned')
  expect(await rowOf(workshop, sagaId)).toEqual(before)
  expect(before).toMatchObject({ fence: 2, deaths: 0, status: 'COMPLETED' })
  const view = await sagas.get(sagaId)
  expect(view?.timeline.map(({ step, status }) => `${step} ${status}`)).toEqual([
    'TAKE done',
    'MAKE done',
    'LIGHT done',
  ])
})

test('trap 6: a step that kills its process five times is quarantined, and a bystander is not', async () => {
  await using workshop = await openWorkshop()
  const leaseTtlMs = 9_000
  const poison = toySaga('poison', workshop.database)
  const bystander = toySaga('bystander', workshop.database)
  const alarms: string[] = []
  const { sagas } = await workshop.engine({
    definitions: [poison, bystander],
    clock: systemClock,
    leaseTtlMs,
    sweepMs: 100,
    onStuck: ({ type, alarm }) => alarms.push(`${type} ${alarm}`),
  })
  const sagaId = await begin(workshop, sagas, poison, { input: { fails: false }, businessKey: 'poison' })
  const waitsFor = randomUUID()
  const besideId = await begin(workshop, sagas, bystander, {
    input: { fails: false, waitsFor },
    businessKey: 'bystander',
  })
  for (let death = 1; death <= 5; death += 1) {
    await using worker = spawnWorker({
      url: workshop.testDatabase.url,
      types: ['poison', 'bystander'],
      leaseTtlMs,
      crash: 'saga.poison.MAKE.before_effect=kill',
    })
    expect(await worker.died()).toBe('SIGKILL')
  }
  await workshop.database.kysely.insertInto('notes').values({ saga_id: besideId, text: waitsFor }).execute()
  await sagas.run()
  expect(await sagas.waitForEnd(besideId, { timeoutMs: 20_000 })).toMatchObject({ status: 'COMPLETED' })
  await until(async () => (await sagas.get(sagaId))?.status === 'QUARANTINED')
  expect(alarms).toEqual(['poison quarantined'])
  expect((await sagas.get(sagaId))?.steps.map(({ status }) => status)).toEqual(['done', 'failed', 'pending'])
  // An operator who has removed the cause lets it go on.
  await sagas.retry(sagaId, 'operator-1')
  expect(await sagas.waitForEnd(sagaId, { timeoutMs: 20_000 })).toMatchObject({ status: 'COMPLETED' })
})
