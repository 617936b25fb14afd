import * as api from '@cloudphone/contracts/api/scheduler-api'
import {
  DeviceDeleted,
  DeviceFailed,
  DeviceReset,
  DeviceResetFailed,
  DeviceStarted,
  DeviceStatusChanged,
  DeviceStopped,
} from '@cloudphone/contracts/events/device-events'
import { UserCreated } from '@cloudphone/contracts/events/user-events'
import { type DeviceId, systemIds } from '@cloudphone/contracts/id'
import { present } from '@cloudphone/testing/present'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { AllocationRow } from './db/schema.ts'
import { callerOf, factsOf, hold, openRoom, type Room, tenantId } from './testing/room.ts'

let room: Room
beforeEach(async () => {
  room = await openRoom()
})
afterEach(() => room[Symbol.asyncDispose]())

const at = () => room.clock.now().toISOString()
const failedOf = (row: AllocationRow, reason = 'Docker container crashed') => ({
  ...factsOf(row.device_id, { allocationId: row.id, fence: row.fence }),
  ...{ reason, startedAt: at(), failedAt: at() },
})

describe('allocate', () => {
  test('a phone is claimed, its fence raised at the devices service, and only then the allocation is ACTIVE', async () => {
    const deviceId = await room.addPhone()
    const caller = callerOf()
    room.door.before = async () => {
      const [row] = await room.database.kysely.selectFrom('allocations').selectAll().execute()
      expect(row).toMatchObject({ status: 'PENDING', allocated_at: null })
      return 'go_on'
    }
    const answer = await room.call(api.CreateAllocation, { caller, body: { durationMinutes: 30 } })
    expect(answer.allocation).toMatchObject({ status: 'PENDING', deviceId, userId: caller.userId })
    expect(answer.sagaId).toMatch(/^allocation_grant-/)
    await room.sagas.drain()
    const row = await room.allocation(answer.allocation.id)
    expect(row.status).toBe('ACTIVE')
    expect(row.expires_at!.getTime() - row.allocated_at!.getTime()).toBe(30 * 60_000)
    expect(room.door.phones.get(deviceId)).toMatchObject({
      allocationId: row.id,
      userId: caller.userId,
      fence: 1,
    })
    expect(await room.phone(deviceId)).toMatchObject({ availability: 'leased', fence: 2 })
    expect(await room.told(row.id)).toMatchObject([
      { type: 'allocation.activated', version: 1, payload: { activatedAt: row.allocated_at!.toISOString() } },
    ])
  })

  test('50 requests at once over 10 phones: exactly 10 get one, and no phone goes out twice', async () => {
    const phones = await Promise.all(Array.from({ length: 10 }, () => room.addPhone()))
    const outcomes = await Promise.allSettled(
      Array.from({ length: 50 }, () =>
        room.call(api.CreateAllocation, { caller: callerOf(), body: { durationMinutes: 5 } }),
      ),
    )
    const given = outcomes.flatMap((one) =>
      one.status === 'fulfilled' ? [one.value.allocation.deviceId] : [],
    )
    expect([...given].sort()).toEqual([...phones].sort())
    const refused = outcomes.flatMap((one) => (one.status === 'rejected' ? [one.reason.code] : []))
    expect(refused).toEqual(Array.from({ length: 40 }, () => 'no_device_available'))
    await room.sagas.drain()
    const { reports, claims } = await room.parts.invariants!()
    expect(reports.every(({ holds }) => holds)).toBe(true)
    const held = claims.filter(({ kind }) => kind === 'allocation').map(({ id }) => id)
    expect(held.sort()).toEqual([...phones].sort())
    expect(claims.filter(({ kind }) => kind === 'session')).toHaveLength(10)
  })

  test('the database itself refuses a second live allocation of a phone', async () => {
    await room.addPhone()
    const row = await hold(room, callerOf())
    const { created_at: _, ...copy } = row
    await expect(
      room.database.kysely
        .insertInto('allocations')
        .values({ ...copy, id: systemIds.next<'allocation'>(), request_key: 'another' })
        .execute(),
    ).rejects.toMatchObject({ constraint: 'allocations_live_device' })
  })

  test('a request that is tried again gets the first allocation and saga', async () => {
    await Promise.all([room.addPhone(), room.addPhone()])
    const request = { caller: callerOf(), body: { durationMinutes: 5 }, requestKey: 'the same' }
    const [first, second] = await Promise.all([
      room.call(api.CreateAllocation, request),
      room.call(api.CreateAllocation, request),
    ])
    const third = await room.call(api.CreateAllocation, request)
    expect(second.allocation.id).toBe(first.allocation.id)
    expect(third.sagaId).toBe(first.sagaId)
    expect(await room.database.kysely.selectFrom('allocations').select('id').execute()).toHaveLength(1)
  })

  test('naming another user needs allocations:any and a user of the same tenant', async () => {
    await room.addPhone()
    const [member, stranger] = [callerOf(), callerOf()]
    await room.hear(UserCreated, 1, { userId: member.userId, tenantId, email: 'a@b.c', role: 'member' })
    const other = systemIds.next<'tenant'>()
    await room.hear(UserCreated, 1, {
      userId: stranger.userId,
      tenantId: other,
      email: 'd@b.c',
      role: 'member',
    })
    const body = { durationMinutes: 5, userId: member.userId }
    await expect(room.call(api.CreateAllocation, { caller: callerOf(), body })).rejects.toMatchObject({
      status: 403,
    })
    const operator = callerOf('operator')
    await expect(
      room.call(api.CreateAllocation, { caller: operator, body: { ...body, userId: stranger.userId } }),
    ).rejects.toMatchObject({ code: 'user_not_found', status: 404 })
    const { allocation } = await room.call(api.CreateAllocation, { caller: operator, body })
    expect(allocation.userId).toBe(member.userId)
  })

  test('phones of other tenants, dedicated, stopped and deleted ones are not given', async () => {
    await room.addPhone(systemIds.next<'tenant'>())
    const dedicated = systemIds.next<'device'>()
    await room.hear(DeviceStarted, 3, {
      ...factsOf(dedicated),
      ...{ userId: systemIds.next<'user'>(), startedAt: at() },
    })
    const stopped = await room.addPhone()
    const end = { startedAt: at(), stoppedAt: at(), duration: 0, reason: 'operator' as const }
    await room.hear(DeviceStopped, 4, { ...factsOf(stopped), ...end })
    const deleted = await room.addPhone()
    await room.hear(DeviceDeleted, 9, { ...factsOf(deleted), reason: 'deleted', deletedAt: at() })
    // An event from before the deletion arrives late: the dead stay dead.
    await room.hear(DeviceStarted, 8, { ...factsOf(deleted), startedAt: at() })
    await room.hear(DeviceStarted, 10, { ...factsOf(deleted), startedAt: at() })
    await expect(
      room.call(api.CreateAllocation, { caller: callerOf(), body: { durationMinutes: 5 } }),
    ).rejects.toMatchObject({ code: 'no_device_available', status: 409 })
  })
})

test('a held phone that starts again stays its holder’s', async () => {
  const deviceId = await room.addPhone()
  const row = await hold(room, callerOf())
  const held = { allocationId: row.id, fence: row.fence }
  await room.hear(DeviceStarted, 7, { ...factsOf(deviceId, held), startedAt: at() })
  expect(await room.phone(deviceId)).toMatchObject({
    availability: 'leased',
    version: 7,
    fence: row.release_fence,
  })
  await expect(hold(room, callerOf())).rejects.toMatchObject({ code: 'no_device_available' })
})

describe('a grant that fails', () => {
  test('a phone that does not run: the allocation is FAILED, the phone free again, and it is told', async () => {
    const deviceId = await room.addPhone()
    room.door.phones.get(deviceId)!.running = false
    const row = await hold(room, callerOf())
    expect(row).toMatchObject({ status: 'FAILED', reason: 'grant_failed', allocated_at: null })
    expect(await room.phone(deviceId)).toMatchObject({ availability: 'available' })
    expect(await room.told(row.id)).toMatchObject([
      {
        type: 'allocation.released',
        version: 1,
        payload: { reason: 'grant_failed', durationSeconds: 0, activatedAt: null },
      },
    ])
  })

  test('a phone that is busy with an operation of its last holder is waited for', async () => {
    await room.addPhone()
    room.door.before = async () => 'busy'
    const row = await hold(room, callerOf())
    expect(row.status).toBe('PENDING')
    room.door.before = async () => 'go_on'
    await room.clock.advance(1_000)
    await room.sagas.drain()
    expect((await room.allocation(row.id)).status).toBe('ACTIVE')
  })

  test('the answer of the raise is lost and it turns back: the hold at the devices service is lowered', async () => {
    const deviceId = await room.addPhone()
    let calls = 0
    room.door.after = async (_id, { allocationId }) => {
      if (allocationId === null) return 'answer'
      calls += 1
      if (calls === 1) {
        const { id, fence, device_id } = (await room.database.kysely
          .selectFrom('allocations')
          .selectAll()
          .executeTakeFirst())!
        await room.hear(DeviceFailed, 5, {
          ...factsOf(device_id, { allocationId: id, fence }),
          ...{ reason: 'crashed', startedAt: at(), failedAt: at() },
        })
      }
      return 'cut'
    }
    const { allocation } = await room.call(api.CreateAllocation, {
      caller: callerOf(),
      body: { durationMinutes: 5 },
    })
    for (const delayMs of [0, 1_000, 2_000, 4_000]) {
      await room.clock.advance(delayMs)
      await room.sagas.drain()
    }
    expect(calls).toBe(4)
    expect(await room.allocation(allocation.id)).toMatchObject({ status: 'FAILED', detail: 'crashed' })
    expect(room.door.phones.get(deviceId)).toMatchObject({ allocationId: null, fence: 2 })
    expect(await room.phone(deviceId)).toMatchObject({ availability: 'unavailable' })
  })
})

describe('device.failed against a grant in hand', () => {
  test('heard between raise and activation: the grant fails with its reason', async () => {
    const deviceId = await room.addPhone()
    room.door.after = async (_id, { allocationId, fence }) => {
      if (allocationId !== null) {
        room.door.phones.get(deviceId)!.running = false
        await room.hear(DeviceStatusChanged, 5, {
          ...factsOf(deviceId, { allocationId, fence }),
          ...{ oldStatus: 'RUNNING', newStatus: 'ERROR', changedAt: at() },
        })
        await room.hear(DeviceFailed, 4, {
          ...factsOf(deviceId, { allocationId, fence }),
          ...{ reason: 'Docker container crashed', startedAt: at(), failedAt: at() },
        })
      }
      return 'answer'
    }
    const row = await hold(room, callerOf())
    expect(row).toMatchObject({
      status: 'FAILED',
      reason: 'grant_failed',
      detail: 'Docker container crashed',
    })
    expect(await room.phone(deviceId)).toMatchObject({ availability: 'unavailable' })
    expect((await room.told(row.id)).map(({ type }) => type)).toEqual(['allocation.released'])
  })

  test('heard after activation: the allocation is released with its reason', async () => {
    const deviceId = await room.addPhone()
    const row = await hold(room, callerOf())
    room.door.phones.get(deviceId)!.running = false
    await room.hear(DeviceFailed, 4, failedOf(row))
    await room.sagas.drain()
    expect(await room.allocation(row.id)).toMatchObject({
      ...{ status: 'RELEASED', reason: 'device_failed', detail: 'Docker container crashed' },
    })
    expect(await room.phone(deviceId)).toMatchObject({ availability: 'unavailable' })
  })
})

describe('release', () => {
  test('by its holder: the fence rises, nobody holds the phone, it is available and the seconds are told', async () => {
    const deviceId = await room.addPhone()
    const caller = callerOf()
    const row = await hold(room, caller)
    await room.clock.advance(90_000)
    const params = { allocationId: row.id }
    const begun = await room.call(api.ReleaseAllocation, { caller, params })
    expect(begun.allocation.status).toBe('RELEASING')
    const again = await room.call(api.ReleaseAllocation, { caller, params })
    expect(again.sagaId).toBe(begun.sagaId)
    await room.sagas.drain()
    const done = await room.call(api.ReleaseAllocation, { caller, params })
    expect(done.allocation).toMatchObject({ status: 'RELEASED', reason: 'user' })
    expect(room.door.phones.get(deviceId)).toMatchObject({ allocationId: null, userId: null, fence: 2 })
    expect(await room.phone(deviceId)).toMatchObject({ availability: 'available' })
    const [, released] = await room.told(row.id)
    expect(released).toMatchObject({ type: 'allocation.released', version: 2, payload: { reason: 'user' } })
    expect(released?.payload.durationSeconds).toBeGreaterThanOrEqual(90)
    expect(released?.payload.durationSeconds).toBeLessThan(100)
  })

  test('others may not, operators may, other tenants see nothing; a failed one cannot be released', async () => {
    const deviceId = await room.addPhone()
    const row = await hold(room, callerOf())
    const params = { allocationId: row.id }
    await expect(room.call(api.ReleaseAllocation, { caller: callerOf(), params })).rejects.toMatchObject({
      status: 403,
    })
    await expect(room.call(api.GetAllocation, { caller: callerOf(), params })).rejects.toMatchObject({
      status: 403,
    })
    const abroad = { ...callerOf('admin'), tenantId: systemIds.next<'tenant'>() }
    await expect(room.call(api.ReleaseAllocation, { caller: abroad, params })).rejects.toMatchObject({
      status: 404,
    })
    await room.call(api.ReleaseAllocation, { caller: callerOf('operator'), params })
    await room.sagas.drain()
    expect(await room.allocation(row.id)).toMatchObject({ reason: 'operator' })
    room.door.phones.get(deviceId)!.running = false
    const caller = callerOf()
    const failed = await hold(room, caller)
    await expect(
      room.call(api.ReleaseAllocation, { caller, params: { allocationId: failed.id } }),
    ).rejects.toMatchObject({ code: 'illegal_transition', status: 409 })
  })

  test('while the devices service is away the phone stays leased; then it goes on, and nobody pays for the wait', async () => {
    const deviceId = await room.addPhone()
    const caller = callerOf()
    const row = await hold(room, caller)
    room.door.before = async () => 'unavailable'
    await room.call(api.ReleaseAllocation, { caller, params: { allocationId: row.id } })
    await room.sagas.drain()
    for (let minute = 0; minute < 10; minute += 1) {
      await room.clock.advance(60_000)
      await room.sagas.drain()
    }
    expect(await room.phone(deviceId)).toMatchObject({ availability: 'leased' })
    room.door.before = async () => 'go_on'
    await room.clock.advance(900_000)
    await room.sagas.drain()
    expect(await room.allocation(row.id)).toMatchObject({ status: 'RELEASED' })
    const [, released] = await room.told(row.id)
    expect(released?.payload.durationSeconds).toBeLessThan(30)
  })
})

describe('after a release', () => {
  /** Holds a phone and leaves something on it; what `during` does happens before the release is through. */
  async function leave(during: (deviceId: DeviceId) => Promise<void> = async () => undefined) {
    const deviceId = await room.addPhone()
    const caller = callerOf()
    const row = await hold(room, caller)
    present(room.door.phones.get(deviceId)).hygiene = 'soiled'
    room.door.after = async () => {
      await during(deviceId)
      return 'answer'
    }
    await room.call(api.ReleaseAllocation, { caller, params: { allocationId: row.id } })
    await room.sagas.drain()
    room.door.after = async () => 'answer'
    expect(await room.allocation(row.id)).toMatchObject({ status: 'RELEASED' })
    return { deviceId, row }
  }
  const wiped = (deviceId: DeviceId, fence: number, version = 6) =>
    room.hear(DeviceReset, version, {
      ...factsOf(deviceId, { fence }),
      ...{ status: 'STOPPED', reason: 'handover', resetAt: at() },
    })
  const unwiped = (deviceId: DeviceId, fence: number, version = 6) =>
    room.hear(DeviceResetFailed, version, {
      ...factsOf(deviceId, { fence }),
      ...{ status: 'STOPPED', reason: 'the disk is broken' },
    })
  const started = (deviceId: DeviceId, version: number) =>
    room.hear(DeviceStarted, version, { ...factsOf(deviceId, { fence: 2 }), startedAt: at() })
  const availability = async (deviceId: DeviceId) => (await room.phone(deviceId)).availability

  test('a phone is cleaned first, and nobody gets it before; then it is available again', async () => {
    const { deviceId } = await leave()
    expect(await availability(deviceId)).toBe('cleaning')
    await expect(
      room.call(api.CreateAllocation, { caller: callerOf(), body: { durationMinutes: 1 } }),
    ).rejects.toMatchObject({ code: 'no_device_available' })
    // Word of an earlier wipe says nothing of what was left since.
    await wiped(deviceId, 1)
    expect(await availability(deviceId)).toBe('cleaning')
    await wiped(deviceId, 2, 7)
    expect(await availability(deviceId)).toBe('unavailable')
    await started(deviceId, 9)
    expect(await availability(deviceId)).toBe('available')
  })

  test('word of the wipe that is faster than the release counts', async () => {
    const { deviceId } = await leave(async (id) => {
      await wiped(id, 2)
      // A dead letter of long ago that is sent again.
      await unwiped(id, 1)
    })
    expect(await availability(deviceId)).toBe('unavailable')
    await started(deviceId, 8)
    expect(await availability(deviceId)).toBe('available')
  })

  test('word of the wipe that is slower than that of the start counts', async () => {
    const { deviceId } = await leave()
    await started(deviceId, 8)
    expect(await availability(deviceId)).toBe('cleaning')
    await wiped(deviceId, 2)
    expect(await availability(deviceId)).toBe('available')
  })

  test('a wipe that failed is quarantine, however early it is heard, until one is proved', async () => {
    const { deviceId } = await leave()
    await unwiped(deviceId, 2)
    expect(await availability(deviceId)).toBe('quarantined')
    await started(deviceId, 8)
    expect(await availability(deviceId)).toBe('quarantined')
    await wiped(deviceId, 2, 9)
    expect(await availability(deviceId)).toBe('unavailable')
    const early = await leave((id) => unwiped(id, 2))
    expect(await availability(early.deviceId)).toBe('quarantined')
  })

  test('word of the wipe takes nothing from who holds the phone by then', async () => {
    const deviceId = await room.addPhone()
    await hold(room, callerOf())
    await unwiped(deviceId, 2)
    expect(await availability(deviceId)).toBe('leased')
  })

  test('a phone that is deleted meanwhile is gone', async () => {
    const { deviceId } = await leave()
    await room.hear(DeviceDeleted, 9, {
      ...factsOf(deviceId, { fence: 2 }),
      ...{ reason: 'deleted', deletedAt: at() },
    })
    expect(await availability(deviceId)).toBe('unavailable')
    await wiped(deviceId, 2, 10)
    expect(await availability(deviceId)).toBe('unavailable')
    const early = await leave((id) =>
      room.hear(DeviceDeleted, 9, {
        ...factsOf(id, { fence: 2 }),
        ...{ reason: 'deleted', deletedAt: at() },
      }),
    )
    expect(await availability(early.deviceId)).toBe('unavailable')
  })
})

describe('the platform takes a phone back', () => {
  test('when its time is over: EXPIRED, and exactly the minutes that were asked for count', async () => {
    await room.addPhone()
    const row = await hold(room, callerOf(), 1)
    await room.parts.onReady!()
    await room.clock.whenSleeping(1)
    await room.clock.advance(61_500)
    await expect.poll(async () => (await room.allocation(row.id)).status).not.toBe('ACTIVE')
    await room.sagas.drain()
    expect(await room.allocation(row.id)).toMatchObject({ status: 'EXPIRED', reason: 'expired' })
    const [, released] = await room.told(row.id)
    expect(released?.payload).toMatchObject({ durationSeconds: 60, reason: 'expired' })
    expect(await room.metrics.render()).toMatch(
      /scheduler_auto_release_total\{[^}]*reason="expired"[^}]*\} 1/,
    )
  })

  const losses = {
    'device.failed': (row: AllocationRow) => room.hear(DeviceFailed, 7, failedOf(row)),
    'device.deleted': (row: AllocationRow) =>
      room.hear(DeviceDeleted, 8, {
        ...factsOf(row.device_id, heldBy(row)),
        reason: 'deleted',
        deletedAt: at(),
      }),
    'device.stopped': (row: AllocationRow) =>
      room.hear(DeviceStopped, 6, {
        ...factsOf(row.device_id, heldBy(row)),
        ...{ startedAt: at(), stoppedAt: at(), duration: 1, reason: 'operator' },
      }),
    'device.status_changed to ERROR': (row: AllocationRow) => statusChanged(row, 'ERROR', 5),
    'device.status_changed to MAINTENANCE': (row: AllocationRow) => statusChanged(row, 'MAINTENANCE', 5),
  }
  const heldBy = (row: AllocationRow) => ({ allocationId: row.id, fence: row.fence })
  const statusChanged = (row: AllocationRow, newStatus: 'ERROR' | 'MAINTENANCE', version: number) =>
    room.hear(DeviceStatusChanged, version, {
      ...factsOf(row.device_id, heldBy(row)),
      ...{ oldStatus: 'RUNNING', newStatus, changedAt: at() },
    })

  test.each(Object.keys(losses) as (keyof typeof losses)[])(
    'when it hears %s, once however often it is told',
    async (name) => {
      const deviceId = await room.addPhone()
      const row = await hold(room, callerOf())
      await losses[name](row)
      await losses[name](row)
      await room.parts.onReady!()
      await room.clock.whenSleeping(1)
      await room.clock.advance(3_500)
      await expect.poll(async () => (await room.allocation(row.id)).status).not.toBe('ACTIVE')
      await room.sagas.drain()
      await losses[name](row)
      await room.sagas.drain()
      expect((await room.allocation(row.id)).status).toBe('RELEASED')
      expect(await room.phone(deviceId)).toMatchObject({ availability: 'unavailable' })
      expect((await room.told(row.id)).map(({ type }) => type)).toEqual([
        'allocation.activated',
        'allocation.released',
      ])
    },
  )

  test('whichever of status_changed and device.failed comes first, the holder learns why', async () => {
    for (const order of [
      ['device.status_changed to ERROR', 'device.failed'],
      ['device.failed', 'device.status_changed to ERROR'],
    ] as const) {
      await room.addPhone()
      const row = await hold(room, callerOf())
      for (const name of order) await losses[name](row)
      await room.sagas.drain()
      expect(await room.allocation(row.id)).toMatchObject({
        status: 'RELEASED',
        detail: 'Docker container crashed',
      })
    }
  })

  test('a crash and a restart, told in any order and twice, end the hold once and leave the phone free', async () => {
    const names = ['failed', 'changed', 'restarted'] as const
    const orders = names.flatMap((first) =>
      names
        .filter((one) => one !== first)
        .map((second) => [first, second, names.find((one) => one !== first && one !== second)!]),
    )
    await room.parts.onReady!()
    for (const order of orders) {
      const deviceId = await room.addPhone()
      const row = await hold(room, callerOf())
      const tell = {
        failed: () => room.hear(DeviceFailed, 4, failedOf(row)),
        changed: () => statusChanged(row, 'ERROR', 5),
        restarted: () => room.hear(DeviceStarted, 7, { ...factsOf(deviceId, heldBy(row)), startedAt: at() }),
      }
      for (const name of [...order, ...order]) {
        await tell[name]()
        await room.sagas.drain()
      }
      const ended = await room.allocation(row.id)
      expect(ended, order.join(', ')).toMatchObject({
        status: 'RELEASED',
        detail: 'Docker container crashed',
      })
      expect(await room.phone(deviceId), order.join(', ')).toMatchObject({
        availability: 'available',
        version: 7,
      })
      expect(await room.told(row.id)).toHaveLength(2)
      // The next round gets a phone of its own.
      await room.hear(DeviceDeleted, 9, { ...factsOf(deviceId), reason: 'deleted', deletedAt: at() })
    }
  })

  test('a late event about an earlier hold does not touch the present one (decision 24)', async () => {
    const deviceId = await room.addPhone()
    const first = callerOf()
    const old = await hold(room, first)
    await room.call(api.ReleaseAllocation, { caller: first, params: { allocationId: old.id } })
    await room.sagas.drain()
    const now = await hold(room, callerOf())
    expect(now.device_id).toBe(deviceId)
    await room.hear(DeviceFailed, 2, failedOf(old))
    await room.hear(DeviceFailed, 2, { ...failedOf(now), fence: old.fence })
    await room.sagas.drain()
    expect(await room.allocation(now.id)).toMatchObject({ status: 'ACTIVE' })
  })

  test('a stale event leaves the mirror alone, yet the loss that it tells of is acted upon (decision 24)', async () => {
    const deviceId = await room.addPhone()
    const row = await hold(room, callerOf())
    await room.hear(DeviceStarted, 9, { ...factsOf(deviceId, heldBy(row)), startedAt: at() })
    await room.hear(DeviceFailed, 7, failedOf(row))
    await room.sagas.drain()
    expect(await room.allocation(row.id)).toMatchObject({ status: 'RELEASED', reason: 'device_failed' })
    // It runs again, as the newer event says, and can go to the next one.
    expect(await room.phone(deviceId)).toMatchObject({ availability: 'available', version: 9 })
  })
})
