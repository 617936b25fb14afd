import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { callerOf, openUsersRoom, someLimits, type UsersRoom } from '../testing/users-room.ts'
import type { Account } from './account.ts'
import { judgeInvariants } from './invariants.ts'

let room: UsersRoom
let owners = 0
beforeAll(async () => {
  room = await openUsersRoom({ poolSize: 25 })
})
afterAll(() => room[Symbol.asyncDispose]())

const phone = { cpu: 2, memory: 4_096, storage: 8_192 }

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
  expect(await usedBy(account)).toEqual({ devices: 5, cpu: 10, memory: 20_480, storage: 40_960 })
  for (const { reason } of refusals) {
    expect(reason).toMatchObject({
      status: 403,
      code: 'quota_exceeded',
      members: { resource: 'devices', wanted: 6, limit: 5 },
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

test('whatever is reserved, committed and released in whatever order, no limit is passed and the counters add up', async () => {
  const act = fc.record({
    what: fc.constantFrom(
      'reserve',
      'reserve',
      'reserve',
      'reserve',
      'reserve',
      'commit',
      'release',
      'expire',
    ),
    which: fc.nat({ max: 11 }),
    cpu: fc.constantFrom(0, 0, 1, 2, 9),
    memory: fc.constantFrom(0, 0, 512, 8_192, 30_000),
    storage: fc.constantFrom(0, 0, 0, 30_000),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(act, { minLength: 1, maxLength: 12 }), { maxLength: 6 }),
      async (rounds) => {
        const account = await somebody()
        const ids = Array.from({ length: 12 }, () => randomUUID())
        for (const round of rounds) {
          const outcomes = await Promise.allSettled(
            round.map(({ what, which, cpu, memory, storage }) => {
              const reservationId = ids[which]!
              const userId = account.id
              if (what === 'commit') return room.quotas.commit(reservationId)
              if (what === 'release') return room.quotas.release(reservationId)
              if (what === 'expire') return room.quotas.expire()
              return room.quotas.reserve({ reservationId, userId, cpu, memory, storage, ttlSeconds: 1 })
            }),
          )
          for (const outcome of outcomes) {
            if (outcome.status === 'rejected')
              expect(outcome.reason).toHaveProperty('code', expect.any(String))
          }
          const { used } = await room.quotas.get(callerOf(account), account.id)
          expect(used.devices).toBeLessThanOrEqual(someLimits.maxDevices)
          expect(used.cpu).toBeLessThanOrEqual(someLimits.maxCpu)
          expect(used.memory).toBeLessThanOrEqual(someLimits.maxMemory)
          expect(used.storage).toBeLessThanOrEqual(someLimits.maxStorage)
          await room.clock.advance(600)
        }
        const { reports } = await judgeInvariants(room.database)
        expect(reports[0]).toMatchObject({ invariant: 3, holds: true, culprits: [] })
      },
    ),
    { numRuns: 25, seed: 20_260 },
  )
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
  expect(await usedBy(account)).toEqual({ devices: 1, ...phone })
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
    culprits: [{ id: account.id, detail: expect.stringContaining('counted 2/5/') }],
  })
})
