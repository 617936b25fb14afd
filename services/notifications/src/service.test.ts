import type { Caller } from '@cloudphone/contracts/access'
import {
  ListNotifications,
  type Notification,
  ReadNotification,
} from '@cloudphone/contracts/api/notifications-api'
import type { PayloadOf } from '@cloudphone/contracts/event'
import { DeviceDeleted, DeviceFailed } from '@cloudphone/contracts/events/device-events'
import { type DeviceId, systemIds, type TenantId, type UserId } from '@cloudphone/contracts/id'
import type { RunningService } from '@cloudphone/runtime/host'
import { openTown, type Town } from '@cloudphone/testing/town'
import { io, type Socket } from 'socket.io-client'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { notifications } from './service.ts'

let town: Town
let one: RunningService
let two: RunningService
const sockets: Socket[] = []

beforeAll(async () => {
  town = await openTown()
  one = await town.start(notifications)
  two = await town.start(notifications)
})

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.close()
})

afterAll(() => town.close())

const tenantId: TenantId = systemIds.next<'tenant'>()
const person = (): Caller => ({ userId: systemIds.next<'user'>(), tenantId, role: 'member', sessionId: 's' })

function failure(userId: UserId | null): PayloadOf<typeof DeviceFailed> {
  const deviceId: DeviceId = systemIds.next<'device'>()
  return {
    ...{ deviceId, deviceName: 'phone-1', tenantId, userId, allocationId: null, fence: 0 },
    ...{ reason: 'Docker container crashed', startedAt: null, failedAt: '2026-11-20T10:00:00.000Z' },
  }
}

async function tellFailure(userId: UserId | null): Promise<DeviceId> {
  const payload = failure(userId)
  await town.publish(DeviceFailed, { aggregateId: payload.deviceId, payload })
  await town.drain()
  return payload.deviceId
}

/** A socket of a person at an instance; `next` resolves with the next pushed notice. */
async function listen(
  at: RunningService,
  token: string,
): Promise<{ socket: Socket; next: Promise<Notification> }> {
  const socket = io(`${at.address}/notifications`, {
    transports: ['websocket'],
    auth: { token },
    reconnection: false,
  })
  sockets.push(socket)
  const next = new Promise<Notification>((resolve) => socket.once('notification', resolve))
  await new Promise<void>((resolve) => socket.once('connect', resolve))
  return { socket, next }
}

describe('a notice', () => {
  it('is stored once, shown to its user only, and marked as read by nobody else', async () => {
    const [ann, bob] = [person(), person()]
    const payload = failure(ann.userId)
    await town.publish(DeviceFailed, { aggregateId: payload.deviceId, payload })
    await town.drain()
    const { items } = await town.call(ListNotifications, { as: ann })
    expect(items).toMatchObject([
      { type: 'device_failed', message: '设备故障：Docker container crashed', readAt: null },
    ])
    expect((await town.call(ListNotifications, { as: bob })).items).toEqual([])
    const params = { notificationId: items[0]?.id ?? '' }
    await expect(town.call(ReadNotification, { as: bob, params })).rejects.toMatchObject({ status: 404 })
    const read = await town.call(ReadNotification, { as: ann, params })
    expect(read.readAt).not.toBeNull()
    expect((await town.call(ReadNotification, { as: ann, params })).readAt).toBe(read.readAt)
    expect((await town.call(ListNotifications, { as: ann, query: { unread: 'true' } })).items).toEqual([])
  })

  it('of a pooled phone has nobody to be told by the device’s own event', async () => {
    const deviceId = await tellFailure(null)
    const { rows } = await town
      .databaseOf('notifications')
      .pool.query(`select 1 from notification where data ->> 'deviceId' = $1`, [deviceId])
    expect(rows).toEqual([])
  })

  it('of a deletion that undid a creation is left to the event that says why', async () => {
    const ann = person()
    const { reason: _reason, startedAt: _startedAt, failedAt: deletedAt, ...facts } = failure(ann.userId)
    const payload = { ...facts, deletedAt, reason: 'creation_failed' as const }
    await town.publish(DeviceDeleted, { aggregateId: facts.deviceId, payload })
    await town.drain()
    expect((await town.call(ListNotifications, { as: ann })).items).toEqual([])
  })

  it('is listed newest first, page by page', async () => {
    const ann = person()
    for (let count = 0; count < 3; count += 1) await tellFailure(ann.userId)
    const first = await town.call(ListNotifications, { as: ann, query: { limit: 2 } })
    const second = await town.call(ListNotifications, {
      as: ann,
      query: { limit: 2, cursor: first.nextCursor ?? '' },
    })
    const ids = [...first.items, ...second.items].map(({ id }) => id)
    expect(ids).toEqual(ids.toSorted().toReversed())
    expect([first.items.length, second.items.length, second.nextCursor]).toEqual([2, 1, null])
  })
})

describe('a push', () => {
  it('reaches the user at whichever instance the socket is, and no other user', async () => {
    const [ann, bob] = [person(), person()]
    const atOne = await listen(one, town.tokenFor(ann))
    const atTwo = await listen(two, town.tokenFor(ann))
    const foreign = await listen(two, town.tokenFor(bob))
    let overheard = 0
    foreign.socket.on('notification', () => ++overheard)
    await tellFailure(ann.userId)
    const notices = await Promise.all([atOne.next, atTwo.next])
    expect(notices[0]).toEqual(notices[1])
    expect(notices[0]).toMatchObject({
      userId: ann.userId,
      english: { message: expect.stringContaining('phone-1') },
    })
    await tellFailure(bob.userId)
    await foreign.next
    expect(overheard).toBe(1)
  })

  it('comes once per notice, also when many come at once', async () => {
    const ann = person()
    const { socket } = await listen(one, town.tokenFor(ann))
    const seen: string[] = []
    const all = new Promise<void>((resolve) => {
      socket.on('notification', ({ id }: Notification) => {
        seen.push(id)
        if (seen.length === 20) resolve()
      })
    })
    for (let count = 0; count < 20; count += 1) {
      const payload = failure(ann.userId)
      await town.publish(DeviceFailed, { aggregateId: payload.deviceId, payload })
    }
    await town.drain()
    await all
    await tellFailure(ann.userId)
    await expect.poll(() => seen.length).toBe(21)
    expect(new Set(seen).size).toBe(21)
  })

  it.each([
    ['a forged token', 'x.y.z', 'invalid_token'],
    ['no token', undefined, 'unauthenticated'],
  ])('is refused to %s', async (_what, token, code) => {
    const socket = io(`${one.address}/notifications`, {
      transports: ['websocket'],
      auth: { token },
      reconnection: false,
    })
    sockets.push(socket)
    const error = await new Promise<Error & { data?: unknown }>((resolve) =>
      socket.once('connect_error', resolve),
    )
    expect(error.data).toEqual({ code })
  })
})
