import { DeviceFailed, DeviceStarted } from '@cloudphone/contracts/events/device-events'
import { type AllocationId, systemIds } from '@cloudphone/contracts/id'
import type { RunningService } from '@cloudphone/runtime/host'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { callerOf, factsOf } from './testing/room.ts'
import { openTown, type Town } from './testing/town.ts'

let town: Town
let instances: readonly RunningService[]
beforeEach(async () => {
  town = await openTown()
  instances = [await town.start(), await town.start()]
})
afterEach(() => town[Symbol.asyncDispose]())

async function addPhone() {
  const id = systemIds.next<'device'>()
  town.door.phones.set(id, { id, running: true, fence: 0, allocationId: null, userId: null })
  const payload = { ...factsOf(id), startedAt: new Date().toISOString() }
  await town.publish(DeviceStarted, { subject: id, version: 1, payload })
  await town.bus.idle()
  return id
}

interface Shown {
  sagaId: string
  allocation: { id: AllocationId; fence: number }
}
const dataOf = (answer: { body: Record<string, unknown> }) => answer.body.data as Shown

test('two instances, real bus and HTTP: a phone comes, is held, fails and is taken back, and it is told', async () => {
  const [one, two] = [instances[0]!, instances[1]!]
  const deviceId = await addPhone()
  const caller = callerOf()
  const request = { method: 'POST', path: '/api/allocations', body: { durationMinutes: 5 }, key: 'first' }
  const accepted = await town.ask(one, caller, request)
  expect(accepted.status).toBe(202)
  expect(await town.ask(two, caller, request)).toEqual(accepted)
  const { sagaId, allocation } = dataOf(accepted)
  const ended = await town.ask(two, caller, { method: 'GET', path: `/api/sagas/${sagaId}?wait=10` })
  expect(dataOf(ended)).toMatchObject({ status: 'COMPLETED', type: 'allocation_grant' })
  const path = `/api/allocations/${allocation.id}`
  expect(dataOf(await town.ask(two, caller, { method: 'GET', path }))).toMatchObject({
    status: 'ACTIVE',
    deviceId,
  })

  town.door.phones.get(deviceId)!.running = false
  const at = new Date().toISOString()
  const facts = factsOf(deviceId, { allocationId: allocation.id, fence: allocation.fence })
  const payload = { ...facts, reason: 'Docker container crashed', startedAt: at, failedAt: at }
  await town.publish(DeviceFailed, { subject: deviceId, version: 2, payload })
  await town.bus.idle()
  const now = dataOf(await town.ask(one, caller, { method: 'GET', path }))
  await town.ask(one, caller, { method: 'GET', path: `/api/sagas/${now.sagaId}?wait=10` })
  const list = await town.ask(one, caller, { method: 'GET', path: `/api/allocations/user/${caller.userId}` })
  expect(list.body).toMatchObject({
    data: [{ status: 'RELEASED', reason: 'device_failed' }],
    page: { nextCursor: null },
  })

  await instances[0]!.drain()
  await instances[1]!.drain()
  const queues = await town.bus.statistics()
  const ready = (name: string) => queues.find(({ queue }) => queue === name)?.ready
  expect([ready('billing.allocation-activated'), ready('billing.allocation-released')]).toEqual([1, 1])
  const metrics = await Promise.all(
    instances.map(async ({ address }) => await (await fetch(`${address}/metrics`)).text()),
  )
  expect(metrics.join('\n')).toMatch(/scheduler_auto_release_total\{[^}]*reason="device_failed"[^}]*\} 1/)
  expect(metrics.join('\n')).toMatch(
    /scheduler_event_consumed_total\{[^}]*event_type="device.failed"[^}]*\} 1/,
  )
})

test('two instances never give one phone to two people', async () => {
  const phones = await Promise.all(Array.from({ length: 5 }, addPhone))
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, n) =>
      town.ask(instances[n % 2]!, callerOf(), { method: 'POST', path: '/api/allocations', body: {} }),
    ),
  )
  const given = answers
    .filter(({ status }) => status === 202)
    .map((answer) => (answer.body.data as { allocation: { deviceId: string } }).allocation.deviceId)
  expect(given.sort()).toEqual([...phones].sort())
  expect(answers.filter(({ body }) => body.code === 'no_device_available')).toHaveLength(15)
})
