import { randomUUID } from 'node:crypto'
import type { Caller } from '@cloudphone/contracts/access'
import { systemIds, type UserId } from '@cloudphone/contracts/id'
import { openOutbox } from '@cloudphone/outbox/open-outbox'
import { present } from '@cloudphone/testing/present'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ensureTenant, insertAccount } from '../db/account-repo.ts'
import { findReservations } from '../db/reservation-repo.ts'
import { openUsersRoom, someDefaults, type UsersRoom } from '../testing/users-room.ts'
import type { KnownReservation } from './admission.ts'
import { judgeInvariants } from './invariants.ts'
import { type Book, excessOf, limitNames, type Portion, plus, type QuotaLimits, resources } from './quota.ts'
import { QuotaService } from './quota-service.ts'

let room: UsersRoom
/** As instances of the service on one database: what they do at the same time is in different batches. */
let instances: QuotaService[]
beforeAll(async () => {
  room = await openUsersRoom({ poolSize: 25 })
  const outbox = openOutbox({ source: 'users', ids: systemIds, wake: () => undefined })
  const { database, audit, telemetry } = room
  const deps = { database, audit, telemetry, outbox, defaults: someDefaults }
  instances = Array.from({ length: 3 }, () => new QuotaService(deps))
})
afterAll(() => room[Symbol.asyncDispose]())

const nothing: Portion = { devices: 0, cpu: 0, memory: 0, storage: 0, sessions: 0 }
const portion = fc.oneof(
  fc.record({
    devices: fc.constant(1),
    cpu: fc.constantFrom(0, 1, 2, 9),
    memory: fc.constantFrom(0, 512, 8_192, 30_000),
    storage: fc.constantFrom(0, 0, 30_000),
    sessions: fc.constant(0),
  }),
  fc.constant({ ...nothing, sessions: 1 }),
)
const limits = fc.record({
  maxDevices: fc.constantFrom(null, 0, 1, 3, 5),
  maxCpu: fc.constantFrom(null, 4, 16),
  maxMemory: fc.constantFrom(null, 8_192, 40_000),
  maxStorage: fc.constantFrom(null, 30_000),
  maxSessions: fc.constantFrom(null, 0, 2),
})
const which = { id: fc.nat({ max: 11 }), at: fc.nat({ max: 2 }) }
const reserve = fc.record({ what: fc.constant('reserve' as const), ...which, portion })
const act = fc.oneof(
  { weight: 6, arbitrary: reserve },
  { weight: 2, arbitrary: fc.record({ what: fc.constant('commit' as const), ...which }) },
  { weight: 2, arbitrary: fc.record({ what: fc.constant('release' as const), ...which }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant('expire' as const), ...which }) },
  {
    weight: 1,
    arbitrary: fc.record({
      what: fc.constantFrom('limit_user' as const, 'limit_tenant' as const),
      ...which,
      limits,
    }),
  },
)
type Act = (typeof act extends fc.Arbitrary<infer One> ? One : never) & { readonly id: number }
type Done = { readonly act: Act; readonly code: string | undefined }

/** Two users of a tenant of their own, and twelve ids: even ones are the first user's, odd ones the second's. */
async function openHouse() {
  const slug = `house-${randomUUID()}`
  const tenantId = await ensureTenant(room.database.kysely, {
    id: systemIds.next<'tenant'>(),
    slug,
    name: slug,
  })
  const userIds = await Promise.all(
    ['one', 'two'].map(async (name) => {
      const account = {
        id: systemIds.next<'user'>(),
        tenantId,
        name,
        role: 'admin' as const,
        passwordHash: 'none',
      }
      await insertAccount(room.database.kysely, { ...account, email: `${name}@${slug}.example.com` })
      return account.id
    }),
  )
  const ids = Array.from({ length: 12 }, () => randomUUID())
  return { tenantId, userIds, ids, ownerOf: (id: number) => userIds[id % 2] as UserId }
}
type House = Awaited<ReturnType<typeof openHouse>>

function adminOf({ tenantId }: House, userId: UserId): Caller {
  return { userId, tenantId, role: 'admin', sessionId: 'test', isPlatform: true }
}

async function perform(house: House, one: Act): Promise<Done> {
  const { tenantId, ids, ownerOf } = house
  const instance = present(instances[one.at])
  const caller = adminOf(house, ownerOf(one.id))
  const reservationId = present(ids[one.id])
  const work = async (): Promise<unknown> => {
    switch (one.what) {
      case 'reserve':
        return await instance.reserve({ reservationId, userId: caller.userId, ...one.portion, ttlSeconds: 1 })
      case 'commit':
        return await instance.commit(reservationId)
      case 'release':
        return await instance.release(reservationId)
      case 'expire':
        return await instance.expire()
      case 'limit_user':
        return await instance.setLimits(caller, caller.userId, one.limits)
      case 'limit_tenant':
        return await instance.setTenantLimits(caller, tenantId, one.limits)
    }
  }
  return await work().then(
    () => ({ act: one, code: undefined }),
    (error: unknown) => {
      expect(error).toHaveProperty('code', expect.any(String))
      return { act: one, code: (error as { code: string }).code }
    },
  )
}

/** What may have become of an id by acts that overlapped, given what they answered. */
function allowedStates(before: string, acts: readonly Done[], mayExpire: boolean): string[] {
  const worked = (what: Act['what']) => acts.some((one) => one.act.what === what && one.code === undefined)
  if (before === 'released' || worked('release')) return ['released']
  if (worked('commit')) return ['committed']
  if (before === 'committed') return ['committed']
  if (before === 'reserved') return mayExpire ? ['released', 'reserved'] : ['reserved']
  return worked('reserve') ? ['reserved'] : ['unknown']
}

/** Holds are never above what a limit allowed at any moment of the round, unless they were before it. */
function assertWithin(before: Book, after: Book, allowed: readonly QuotaLimits[]): void {
  for (const resource of resources) {
    const most = Math.max(before.used[resource], ...allowed.map((one) => one[limitNames[resource]]))
    expect(after.used[resource]).toBeLessThanOrEqual(most)
  }
}

async function look(house: House) {
  const { tenantId, userIds, ids } = house
  const caller = adminOf(house, house.ownerOf(0))
  const users = await Promise.all(userIds.map((userId) => room.quotas.get(caller, userId)))
  const tenant = await room.quotas.getTenant(caller, tenantId)
  return { users, tenant, held: await findReservations(room.database.kysely, ids) }
}

const stateOf = (held: ReadonlyMap<string, KnownReservation>, id: string) => held.get(id)?.state ?? 'unknown'

function limitsDuring(book: Book, which: 'user' | 'tenant', set: readonly Done[]): QuotaLimits[] {
  const merged = (limits: Record<string, number | null>): QuotaLimits => ({
    ...someDefaults[which],
    ...Object.fromEntries(
      Object.entries(limits).flatMap(([name, value]) => (value === null ? [] : [[name, value]])),
    ),
  })
  return [book.limits, ...set.flatMap(({ act: one }) => ('limits' in one ? [merged(one.limits)] : []))]
}

async function playRound(house: House, round: readonly Act[]): Promise<void> {
  const before = await look(house)
  const done = await Promise.all(round.map((one) => perform(house, one)))
  const after = await look(house)
  const mayExpire = round.some(({ what }) => what === 'expire')
  for (const [index, id] of house.ids.entries()) {
    const acts = done.filter(({ act: one }) => one.id === index)
    expect(allowedStates(stateOf(before.held, id), acts, mayExpire)).toContain(stateOf(after.held, id))
  }
  for (const [at, userId] of house.userIds.entries()) {
    const set = done.filter(({ act: one }) => one.what === 'limit_user' && house.ownerOf(one.id) === userId)
    assertWithin(
      present(before.users[at]),
      present(after.users[at]),
      limitsDuring(present(before.users[at]), 'user', set),
    )
    const mine = [...after.held.values()].filter((one) => one.userId === userId && one.state !== 'released')
    expect(after.users[at]?.used).toEqual(mine.reduce<Portion>(plus, nothing))
  }
  const set = done.filter(({ act: one }) => one.what === 'limit_tenant')
  assertWithin(before.tenant, after.tenant, limitsDuring(before.tenant, 'tenant', set))
  expect(after.tenant.used).toEqual(after.users.map(({ used }) => used).reduce(plus, nothing))
  // Alone, a reservation is refused exactly when it does not fit.
  const [only] = done.length === 1 ? done : []
  if (only?.act.what !== 'reserve' || stateOf(before.held, present(house.ids[only.act.id])) !== 'unknown')
    return
  const books = [present(before.users[only.act.id % 2]), before.tenant]
  const { portion: asked } = only.act
  const fits = books.every((book) => excessOf(book, asked) === undefined)
  expect(only.code).toBe(fits ? undefined : 'quota_exceeded')
}

test('whatever is reserved, committed, released, expired and limited at the same time, no limit is passed and all counters add up', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.oneof(fc.array(act, { minLength: 2, maxLength: 16 }), fc.tuple(act)), { maxLength: 7 }),
      async (rounds) => {
        const house = await openHouse()
        for (const round of rounds) {
          await playRound(house, round)
          await room.clock.advance(600)
        }
        const { reports } = await judgeInvariants(room.database)
        expect(reports[0]).toMatchObject({ invariant: 3, holds: true, culprits: [] })
      },
    ),
    { numRuns: 15, seed: 20_260 },
  )
}, 120_000)

test('more at once than fits, by three instances, takes exactly what fits', async () => {
  const house = await openHouse()
  const admin = adminOf(house, house.ownerOf(0))
  await room.quotas.setTenantLimits(admin, house.tenantId, { ...someDefaults.tenant, maxDevices: 7 })
  const answers = await Promise.allSettled(
    Array.from({ length: 120 }, (_, n) =>
      present(instances[n % 3]).reserve({
        ...{ reservationId: randomUUID(), userId: house.ownerOf(n), ttlSeconds: 60 },
        ...{ ...nothing, devices: 1 },
      }),
    ),
  )
  expect(answers.filter(({ status }) => status === 'fulfilled')).toHaveLength(7)
  expect((await look(house)).tenant.used.devices).toBe(7)
})
