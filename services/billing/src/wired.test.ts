import { DeviceFailed, DeviceStarted, DeviceStopped } from '@cloudphone/contracts/events/device-events'
import { systemIds } from '@cloudphone/contracts/id'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { callerOf, tenantId } from './testing/books.ts'
import { openTown, type Town } from './testing/town.ts'

let town: Town
beforeEach(async () => {
  town = await openTown()
})
afterEach(() => town[Symbol.asyncDispose]())

test('an hour is 1.00 over the real bus and HTTP, across a restart, and a late failure changes nothing', async () => {
  const owner = callerOf()
  const deviceId = systemIds.next<'device'>()
  const facts = { deviceId, deviceName: 'p', tenantId, userId: owner.userId, allocationId: null, fence: 0 }
  const startedAt = '2026-11-20T10:00:00.000Z'
  const stoppedAt = '2026-11-20T11:00:00.000Z'
  const first = await town.start()
  await town.publish(DeviceStarted, { subject: deviceId, version: 1, payload: { ...facts, startedAt } })
  await town.bus.idle()
  const path = '/api/billing/usage/total'
  expect(await town.ask(first, owner, { method: 'GET', path })).toMatchObject({
    ...{ status: 200, body: { data: { records: 0, open: 1, cost: '0.00' } } },
  })
  await first.close()
  const stopped = { ...facts, startedAt, stoppedAt, duration: 3600, reason: 'user' as const }
  await town.publish(DeviceStopped, { subject: deviceId, version: 2, payload: stopped })
  const failed = { ...facts, startedAt, failedAt: '2026-11-20T12:00:00.000Z', reason: 'late' }
  await town.publish(DeviceFailed, { subject: deviceId, version: 3, payload: failed })
  const [one, two] = [await town.start(), await town.start()]
  await town.bus.idle()
  for (const instance of [one, two]) {
    expect(await town.ask(instance, owner, { method: 'GET', path })).toMatchObject({
      ...{ status: 200, body: { success: true, data: { records: 1, open: 0, seconds: 3600, cost: '1.00' } } },
    })
  }
  const list = await town.ask(one, owner, { method: 'GET', path: `/api/billing/usage?deviceId=${deviceId}` })
  expect(list.body).toMatchObject({
    data: [
      {
        startTime: startedAt,
        endTime: stoppedAt,
        duration: 3600,
        costMicro: 1_000_000,
        closedBy: 'device.stopped',
      },
    ],
    page: { nextCursor: null },
  })
  const other = callerOf()
  expect(await town.ask(one, other, { method: 'GET', path: `${path}?userId=${owner.userId}` })).toMatchObject(
    {
      ...{ status: 403, body: { code: 'forbidden', success: false } },
    },
  )
})
