import * as api from '@cloudphone/contracts/api/scheduler-api'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { judgeInvariants } from './domain/invariants.ts'
import { callerOf, hold, openRoom, type Room } from './testing/room.ts'

let room: Room
beforeAll(async () => {
  room = await openRoom()
})
afterAll(() => room[Symbol.asyncDispose]())

const owed = async () =>
  (await room.database.kysely.selectFrom('quota_releases').select('reservation_id').execute()).map(
    (row) => row.reservation_id,
  )

test('an allocation holds a session of quota from before its claim until it has ended', async () => {
  await room.addPhone()
  const caller = callerOf()
  const { id, quota_reservation_id: session } = await hold(room, caller)
  expect(room.quota.reservations.get(session!)).toBe('committed')
  const { claims } = await judgeInvariants(room.database)
  expect(claims).toContainEqual({ kind: 'session', id: session, detail: 'ACTIVE' })
  await room.call(api.ReleaseAllocation, { caller, params: { allocationId: id } })
  expect(await owed()).not.toContain(session)
  await room.sagas.drain()
  expect((await room.allocation(id)).status).toBe('RELEASED')
  expect(await owed()).toContain(session)
  expect((await judgeInvariants(room.database)).claims).toEqual([])
})

test('who has no session left gets no phone, and no phone takes no session', async () => {
  const phone = await room.addPhone()
  const [poor, other] = [callerOf(), callerOf()]
  room.quota.poor.add(poor.userId)
  const asked = { body: { durationMinutes: 5 } }
  await expect(room.call(api.CreateAllocation, { caller: poor, ...asked })).rejects.toMatchObject({
    ...{ status: 403, code: 'quota_exceeded' },
  })
  const phones = await room.database.kysely.selectFrom('device_mirror').select('availability').execute()
  expect(phones.filter(({ availability }) => availability === 'available').length).toBeGreaterThan(0)
  while ((await room.phone(phone)).availability === 'available') await hold(room, other)
  for (;;) {
    const before = new Set(room.quota.reservations.keys())
    const answer = await room
      .call(api.CreateAllocation, { caller: other, ...asked })
      .catch((error: unknown) => error)
    await room.sagas.drain()
    const [made, ...more] = [...room.quota.reservations].filter(([id]) => !before.has(id))
    expect(more).toEqual([])
    if (!(answer instanceof Error)) continue
    expect(answer).toMatchObject({ code: 'no_device_available' })
    expect(made?.[1]).toBe('released')
    break
  }
})

test('a session that ran out before it was kept gives nobody a phone', async () => {
  const phone = await room.addPhone()
  const caller = callerOf()
  const { allocation } = await room.call(api.CreateAllocation, { caller, body: { durationMinutes: 5 } })
  const { quota_reservation_id: session } = await room.allocation(allocation.id)
  room.quota.reservations.set(session!, 'released')
  await room.sagas.drain()
  expect(await room.allocation(allocation.id)).toMatchObject({ status: 'FAILED', reason: 'grant_failed' })
  expect((await room.phone(phone)).availability).toBe('available')
  expect(room.door.phones.get(phone)?.allocationId).toBeNull()
  expect(await owed()).toContain(session)
})
