import { GetSaga } from '@cloudphone/contracts/api/platform-api'
import * as api from '@cloudphone/contracts/api/scheduler-api'
import { DeviceFailed, DeviceStarted } from '@cloudphone/contracts/events/device-events'
import { systemIds } from '@cloudphone/contracts/id'
import type { RunningService } from '@cloudphone/runtime/host'
import { type QuotaDoor, quotaDoor } from '@cloudphone/testing/quota-door'
import { openTown, type Town } from '@cloudphone/testing/town'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { scheduler } from './service.ts'
import { type DevicesDoor, openDevicesDoor } from './testing/devices-door.ts'
import { callerOf, factsOf } from './testing/room.ts'

let town: Town
let door: DevicesDoor
let quota: QuotaDoor
let instances: readonly [RunningService, RunningService]
beforeEach(async () => {
  town = await openTown({ env: { SCHEDULER_EXPIRY_EVERY_MS: '100' } })
  door = await openDevicesDoor(town.serviceTokens)
  town.closing.defer('devices', async () => await door[Symbol.asyncDispose]())
  await town.platform.registry.register('devices', door.address)
  quota = quotaDoor()
  await town.neighbour('users', quota.bindings)
  instances = [await town.start(scheduler), await town.start(scheduler)]
})
afterEach(() => town.close())

async function addPhone() {
  const id = systemIds.next<'device'>()
  door.phones.set(id, { id, running: true, fence: 0, allocationId: null, userId: null, hygiene: 'clean' })
  const payload = { ...factsOf(id), startedAt: new Date().toISOString() }
  await town.publish(DeviceStarted, { aggregateId: id, version: 1, payload })
  await town.drain()
  return id
}

test('two instances, real bus and HTTP: a phone comes, is held, fails and is taken back, and it is told', async () => {
  const [one, two] = instances
  const deviceId = await addPhone()
  const as = callerOf()
  const wish = { as, key: 'first', body: { durationMinutes: 5 } }
  const accepted = await town.call(api.CreateAllocation, { ...wish, at: one })
  expect(await town.call(api.CreateAllocation, { ...wish, at: two })).toEqual(accepted)
  const { sagaId, allocation } = accepted
  const ended = await town.call(GetSaga, { as, at: two, params: { sagaId }, query: { wait: 10 } })
  expect(ended).toMatchObject({ status: 'COMPLETED', type: 'allocation_grant' })
  const params = { allocationId: allocation.id }
  expect(await town.call(api.GetAllocation, { as, at: two, params })).toMatchObject({
    ...{ status: 'ACTIVE', deviceId },
  })

  door.phones.get(deviceId)!.running = false
  const at = new Date().toISOString()
  const facts = factsOf(deviceId, { allocationId: allocation.id, fence: allocation.fence })
  const payload = { ...facts, reason: 'Docker container crashed', startedAt: at, failedAt: at }
  await town.publish(DeviceFailed, { aggregateId: deviceId, version: 2, payload })
  await town.drain()
  const list = await town.call(api.ListUserAllocations, { as, at: one, params: { userId: as.userId } })
  expect(list).toMatchObject({
    items: [{ status: 'RELEASED', reason: 'device_failed' }],
    nextCursor: null,
  })

  const given = async () => [...quota.reservations.values()].every((state) => state === 'released')
  await expect.poll(given, { timeout: 15_000 }).toBe(true)

  const queues = await town.platform.bus.statistics()
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
  const answers = await Promise.allSettled(
    Array.from({ length: 20 }, (_, n) =>
      town.call(api.CreateAllocation, { as: callerOf(), at: instances[n % 2]!, body: {} }),
    ),
  )
  const given = answers.flatMap((one) => (one.status === 'fulfilled' ? [one.value.allocation.deviceId] : []))
  expect(given.sort()).toEqual([...phones].sort())
  const refused = answers.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []))
  expect(refused).toHaveLength(15)
  for (const reason of refused) expect(reason).toMatchObject({ code: 'no_device_available' })
})
