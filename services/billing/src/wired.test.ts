import { ListUsage, UsageTotal } from '@cloudphone/contracts/api/billing-api'
import { DeviceFailed, DeviceStarted, DeviceStopped } from '@cloudphone/contracts/events/device-events'
import { systemIds } from '@cloudphone/contracts/id'
import { openTown, type Town } from '@cloudphone/testing/town'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { billing } from './service.ts'
import { callerOf, tenantId } from './testing/books.ts'

let town: Town
beforeEach(async () => {
  town = await openTown()
})
afterEach(() => town.close())

test('an hour is 1.00 over the real bus and HTTP, across a restart, and a late failure changes nothing', async () => {
  const owner = callerOf()
  const aggregateId = systemIds.next<'device'>()
  const facts = { deviceName: 'p', tenantId, userId: owner.userId, allocationId: null, fence: 0 }
  const startedAt = '2026-11-20T10:00:00.000Z'
  const stoppedAt = '2026-11-20T11:00:00.000Z'
  const common = { ...facts, deviceId: aggregateId, startedAt }
  const first = await town.start(billing)
  await town.publish(DeviceStarted, { aggregateId, version: 1, payload: common })
  await town.drain()
  expect(await town.call(UsageTotal, { at: first, as: owner })).toMatchObject({
    ...{ records: 0, open: 1, cost: '0.00' },
  })
  await first.close()
  const stopped = { ...common, stoppedAt, duration: 3600, reason: 'user' as const }
  await town.publish(DeviceStopped, { aggregateId, version: 2, payload: stopped })
  const failed = { ...common, failedAt: '2026-11-20T12:00:00.000Z', reason: 'late' }
  await town.publish(DeviceFailed, { aggregateId, version: 3, payload: failed })
  const [one, two] = [await town.start(billing), await town.start(billing)]
  await town.drain()
  for (const at of [one, two]) {
    expect(await town.call(UsageTotal, { at, as: owner })).toMatchObject({
      ...{ records: 1, open: 0, seconds: 3600, cost: '1.00' },
    })
  }
  const list = await town.call(ListUsage, { at: one, as: owner, query: { deviceId: aggregateId } })
  expect(list).toMatchObject({
    items: [
      {
        ...{ startTime: startedAt, endTime: stoppedAt, duration: 3600, costMicro: 1_000_000 },
        closedBy: 'device.stopped',
      },
    ],
    nextCursor: null,
  })
  const foreign = town.call(UsageTotal, { at: one, as: callerOf(), query: { userId: owner.userId } })
  await expect(foreign).rejects.toMatchObject({ status: 403, code: 'forbidden' })
})
