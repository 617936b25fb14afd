import { randomUUID } from 'node:crypto'
import { systemIds } from '@cloudphone/contracts/id'
import { openOutbox } from '@cloudphone/outbox/open-outbox'
import { present } from '@cloudphone/testing/present'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import {
  callerOf,
  openUsersRoom,
  someDefaults,
  someLimits,
  type UsersRoom,
  wideLimits,
} from '../testing/users-room.ts'
import type { Account } from './account.ts'
import { judgeInvariants } from './invariants.ts'
import { recountQuota } from './quota-recount.ts'
import { QuotaService } from './quota-service.ts'

let room: UsersRoom
let owners = 0
beforeAll(async () => {
  room = await openUsersRoom({ poolSize: 25 })
})
afterAll(() => room[Symbol.asyncDispose]())

const phone = { devices: 1, cpu: 2, memory: 4_096, storage: 8_192, sessions: 0 }

function somebody(): Promise<Account> {
  owners += 1
  return room.account(`owner${owners}@example.com`)
}

function wanted(account: Account, reservationId: string = randomUUID(), ttlSeconds = 900) {
  return { reservationId, userId: account.id, ...phone, ttlSeconds }
}

async function usedBy(account: Account) {
  return (await room.quotas.get(callerOf(account), account.id)).used
}

test('50 reservations at the same time take exactly what the quota allows', async () => {
  const account = await somebody()
  const answers = await Promise.allSettled(
    Array.from({ length: 50 }, () => room.quotas.reserve(wanted(account))),
  )
  const refusals = answers.filter((answer) => answer.status === 'rejected')
  expect(answers.length - refusals.length).toBe(someLimits.maxDevices)
  expect(await usedBy(account)).toEqual({ devices: 5, cpu: 10, memory: 20_480, storage: 40_960, sessions: 0 })
  for (const { reason } of refusals) {
    expect(reason).toMatchObject({
      status: 403,
      code: 'quota_exceeded',
      members: { whose: 'user', id: account.id, resource: 'devices', limit: 5, used: 5, asked: 1 },
    })
  }
})

test('nobody reserves for a user of another tenant', async () => {
  const [account, stranger] = [
    await somebody(),
    await room.account('stranger@example.com', 'admin', 'elsewhere'),
  ]
  const asked = { ...wanted(account), tenantId: stranger.tenantId }
  await expect(room.quotas.reserve(asked)).rejects.toMatchObject({ status: 404, code: 'user_not_found' })
  expect(await usedBy(account)).toMatchObject({ devices: 0 })
  expect(await room.quotas.reserve({ ...asked, tenantId: account.tenantId })).toMatchObject({
    state: 'reserved',
  })
})

test('reserving again under the same id answers what is held, and takes nothing more', async () => {
  const account = await somebody()
  const once = wanted(account)
  const answers = await Promise.all(Array.from({ length: 10 }, () => room.quotas.reserve(once)))
  expect(new Set(answers.map(({ state }) => state))).toEqual(new Set(['reserved']))
  await room.quotas.commit(once.reservationId)
  await room.quotas.commit(once.reservationId)
  expect(await room.quotas.reserve(once)).toMatchObject({ state: 'committed' })
  expect((await usedBy(account)).devices).toBe(1)
  await expect(room.quotas.reserve({ ...once, cpu: 3 })).rejects.toMatchObject({
    code: 'reservation_conflict',
  })
})

test('a release is for ever, also of what was never reserved', async () => {
  const account = await somebody()
  const held = wanted(account)
  await room.quotas.reserve(held)
  await room.quotas.release(held.reservationId)
  await room.quotas.release(held.reservationId)
  expect((await usedBy(account)).devices).toBe(0)
  const late = wanted(account)
  await room.quotas.release(late.reservationId)
  for (const { reservationId } of [held, late]) {
    const refused = { status: 409, code: 'reservation_released' }
    await expect(room.quotas.reserve(wanted(account, reservationId))).rejects.toMatchObject(refused)
    await expect(room.quotas.commit(reservationId)).rejects.toMatchObject(refused)
  }
  await expect(room.quotas.commit(randomUUID())).rejects.toMatchObject({ code: 'reservation_not_found' })
})

test('a reservation that nobody commits is given back after its time; a committed one never', async () => {
  const account = await somebody()
  const [lost, kept] = [wanted(account, randomUUID(), 60), wanted(account, randomUUID(), 60)]
  await room.quotas.reserve(lost)
  await room.quotas.reserve(kept)
  await room.quotas.commit(kept.reservationId)
  await room.clock.advance(59_000)
  await room.quotas.expire()
  expect((await usedBy(account)).devices).toBe(2)
  await room.clock.advance(2_000)
  await Promise.all([room.quotas.expire(), room.quotas.expire()])
  expect(await usedBy(account)).toEqual(phone)
  await expect(room.quotas.commit(lost.reservationId)).rejects.toMatchObject({ code: 'reservation_released' })
})

test('limits may be lowered below what is used; then nothing more fits', async () => {
  const admin = callerOf(await room.account('limits@example.com', 'admin'))
  const account = await somebody()
  const held = wanted(account)
  await room.quotas.reserve(held)
  await room.quotas.reserve(wanted(account))
  const lowered = await room.quotas.setLimits(admin, account.id, { ...someLimits, maxDevices: 1 })
  expect(lowered).toMatchObject({ limits: { maxDevices: 1 }, used: { devices: 2 } })
  await room.quotas.release(held.reservationId)
  await expect(room.quotas.reserve(wanted(account))).rejects.toMatchObject({ code: 'quota_exceeded' })
  await expect(room.quotas.setLimits(callerOf(account), admin.userId, someLimits)).rejects.toMatchObject({
    status: 403,
  })
})

test('unknown and suspended users are told apart from a full quota', async () => {
  const account = await somebody()
  await room.suspend(account)
  await expect(room.quotas.reserve(wanted(account))).rejects.toMatchObject({
    status: 403,
    code: 'user_suspended',
  })
  const unknown = { ...wanted(account), userId: randomUUID() as Account['id'] }
  await expect(room.quotas.reserve(unknown)).rejects.toMatchObject({ status: 404, code: 'user_not_found' })
})

test('the doctor sees every live reservation as a claim, and counters that lie', async () => {
  const account = await somebody()
  const [held, done] = [wanted(account), wanted(account)]
  await room.quotas.reserve(held)
  await room.quotas.reserve(done)
  await room.quotas.commit(done.reservationId)
  const { claims } = await judgeInvariants(room.database)
  expect(claims).toContainEqual({ kind: 'quota', id: held.reservationId, detail: 'reserved' })
  expect(claims).toContainEqual({ kind: 'quota', id: done.reservationId, detail: 'committed' })
  await sql`update quotas set cpu = cpu + 1 where user_id = ${account.id}`.execute(room.database.kysely)
  const { reports } = await judgeInvariants(room.database)
  await sql`update quotas set cpu = cpu - 1 where user_id = ${account.id}`.execute(room.database.kysely)
  expect(reports[0]).toMatchObject({
    holds: false,
    culprits: [{ id: account.id, detail: expect.stringContaining('user: counted 2/5/') }],
  })
})

test('a tenant has limits of its own, for all its users together', async () => {
  const admin = await room.account('admin@many.example.com', 'admin', 'many')
  const people = await Promise.all(
    Array.from({ length: 8 }, (_, n) => room.account(`p${n}@many.example.com`, 'member', 'many')),
  )
  const platform = { ...callerOf(await somebody()), role: 'admin' as const, isPlatform: true }
  const set = await room.quotas.setTenantLimits(platform, admin.tenantId, {
    ...wideLimits,
    maxDevices: 12,
    maxCpu: null,
  })
  expect(set).toMatchObject({ limits: { ...wideLimits, maxDevices: 12 }, used: { devices: 0 } })
  const answers = await Promise.allSettled(
    Array.from({ length: 40 }, (_, n) => room.quotas.reserve(wanted(present(people[n % 8])))),
  )
  const refusals = answers.filter((answer) => answer.status === 'rejected')
  expect(refusals).toHaveLength(28)
  for (const { reason } of refusals) {
    expect(reason).toMatchObject({
      ...{ status: 403, code: 'quota_exceeded' },
      members: { whose: 'tenant', id: admin.tenantId, resource: 'devices', limit: 12, used: 12, asked: 1 },
      message: expect.stringContaining('of 12 devices, 12 are in use and 1 more were asked for'),
    })
  }
  expect(await room.quotas.getTenant(callerOf(admin), admin.tenantId)).toMatchObject({
    used: { devices: 12, cpu: 24, memory: 12 * 4_096, storage: 12 * 8_192, sessions: 0 },
  })
  const stranger = callerOf(await room.account('stranger@few.example.com', 'admin', 'few'))
  await expect(room.quotas.getTenant(stranger, admin.tenantId)).rejects.toMatchObject({ status: 404 })
  expect((await room.quotas.getTenant(platform, admin.tenantId)).used.devices).toBe(12)
  for (const caller of [stranger, callerOf(admin)]) {
    const attempt = room.quotas.setTenantLimits(caller, admin.tenantId, wideLimits)
    await expect(attempt).rejects.toMatchObject({ code: 'forbidden' })
  }
})

test('sessions are counted beside phones, and a refusal of one leaves room for the other', async () => {
  const account = await somebody()
  const session = () => ({
    ...{ reservationId: randomUUID(), userId: account.id, ttlSeconds: 60 },
    ...{ devices: 0, cpu: 0, memory: 0, storage: 0, sessions: 1 },
  })
  const answers = await Promise.allSettled([
    ...Array.from({ length: 6 }, () => room.quotas.reserve(session())),
    room.quotas.reserve(wanted(account)),
  ])
  expect(answers.filter(({ status }) => status === 'fulfilled')).toHaveLength(4)
  expect(await usedBy(account)).toEqual({ ...phone, sessions: 3 })
  await expect(room.quotas.reserve(session())).rejects.toMatchObject({
    members: { resource: 'sessions', limit: 3, used: 3, asked: 1 },
  })
})

test('a refusal is told once for each limit, until something is given back', async () => {
  const account = await somebody()
  const held = wanted(account)
  await room.quotas.reserve(held)
  const tooMuch = () => ({ ...wanted(account), cpu: 100 })
  const refuse = async () =>
    await Promise.allSettled(Array.from({ length: 5 }, () => room.quotas.reserve(tooMuch())))
  const told = async () =>
    (await room.events())
      .filter((one) => one.aggregate_id === account.id && one.event_type === 'user.quota_exceeded')
      .map(({ payload }) => payload)
  await refuse()
  await refuse()
  const { id: userId, tenantId } = account
  const excess = { userId, tenantId, whose: 'user', resource: 'cpu', limit: 16, used: 2, asked: 100 }
  expect(await told()).toEqual([excess])
  await room.quotas.release(held.reservationId)
  await refuse()
  expect(await told()).toEqual([excess, { ...excess, used: 0 }])
  const admin = callerOf(await room.account('teller@example.com', 'admin'))
  await room.quotas.setLimits(admin, account.id, { ...someLimits, maxDevices: null, maxCpu: 20 })
  await refuse()
  const events = (await room.events()).filter((one) => one.aggregate_id === account.id)
  expect(events.map(({ event_type: type }) => type)).toEqual([
    ...['user.created', 'user.quota_exceeded', 'user.quota_exceeded'],
    ...['user.quota_updated', 'user.quota_exceeded'],
  ])
  expect(events[3]?.payload).toEqual({ userId, tenantId, ...someLimits, maxCpu: 20 })
})

test('what runs under one id at the same time is one reservation or a tombstone', async () => {
  const account = await somebody()
  for (let round = 0; round < 10; round += 1) {
    const once = wanted(account)
    const other = new QuotaService({
      ...{ database: room.database, telemetry: room.telemetry, defaults: someDefaults },
      audit: room.audit,
      outbox: openOutbox({ source: 'users', ids: systemIds, wake: () => undefined }),
    })
    const outcomes = await Promise.allSettled([
      room.quotas.reserve(once),
      other.reserve(once),
      room.quotas.release(once.reservationId),
      other.release(once.reservationId),
      other.reserve(once),
    ])
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected')
        expect(outcome.reason).toMatchObject({ code: 'reservation_released' })
    }
    expect((await usedBy(account)).devices).toBe(0)
  }
})

test('counters that were changed by hand are recounted from the reservations', async () => {
  const account = await somebody()
  await room.quotas.reserve(wanted(account))
  const recount = async () => await recountQuota({ ...room, defaults: someDefaults })
  expect(await recount()).toBe(0)
  await sql`update quotas set cpu = 99, sessions = 1 where user_id = ${account.id}`.execute(
    room.database.kysely,
  )
  await sql`update tenant_quotas set devices = devices + 7 where tenant_id = ${account.tenantId}`.execute(
    room.database.kysely,
  )
  expect((await judgeInvariants(room.database)).reports[0]?.culprits).toHaveLength(2)
  expect(await recount()).toBe(2)
  expect((await judgeInvariants(room.database)).reports[0]).toMatchObject({ holds: true, culprits: [] })
  expect(await usedBy(account)).toEqual(phone)
})
