import { openMemoryCache } from '@cloudphone/cache/memory-cache'
import { systemIds, type UserId } from '@cloudphone/contracts/id'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { staticRegistry } from '@cloudphone/registry/registry'
import { openServiceClient } from '@cloudphone/runtime/service-client'
import { openServiceTokens } from '@cloudphone/runtime/tokens'
import { fakeClock } from '@cloudphone/testing/fake-clock'
import { openQuotaDoor } from '@cloudphone/testing/quota-door'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openTelemetry } from '../telemetry.ts'
import { FRESH_MS, QuotaCache } from './quota-cache.ts'

const phone = { cpuCores: 2, memoryMb: 4_096, storageMb: 8_192 }
const limits = { maxDevices: 3, maxCpu: 16, maxMemory: 32_768, maxStorage: 65_536, maxSessions: 2 }
const nothing = { devices: 0, cpu: 0, memory: 0, storage: 0, sessions: 0 }

/** A cache in front of quota routes over real HTTP, with a clock that stands still. */
async function openBed() {
  const clock = fakeClock()
  const serviceTokens = openServiceTokens({ secret: 'a secret of this test only, 32 chars', now: clock.now })
  const users = await openQuotaDoor(serviceTokens)
  const registry = staticRegistry({ users: [users.address] })
  const client = openServiceClient({ self: 'devices', registry, serviceTokens })
  const telemetry = openTelemetry(silentLog(), openMetrics('devices'))
  const cache = new QuotaCache({ client, clock, telemetry, entries: openMemoryCache(clock) })
  const tenantId = systemIds.next<'tenant'>()
  return {
    ...{ cache, clock, quota: users.quota, tenantId },
    someone: (used = nothing): UserId => {
      const userId = systemIds.next<'user'>()
      users.quota.books.set(userId, { tenantId, limits, used })
      return userId
    },
    close: async () => {
      await client.close()
      await users.close()
    },
  }
}

let bed: Awaited<ReturnType<typeof openBed>>
beforeEach(async () => {
  bed = await openBed()
})
afterEach(() => bed.close())

test('the users service is asked once, and again after 60 s', async () => {
  const { cache, clock, quota, someone } = bed
  const userId = someone()
  const first = await Promise.all(Array.from({ length: 10 }, () => cache.check(userId, phone)))
  expect(first[0]).toMatchObject({
    excess: undefined,
    source: 'users',
    quota: { user: { limits, used: nothing } },
  })
  expect(quota.reads).toBe(1)
  await clock.advance(FRESH_MS)
  expect(await cache.check(userId, phone)).toMatchObject({ source: 'cache' })
  await clock.advance(1)
  expect(await cache.check(userId, phone)).toMatchObject({ source: 'users' })
  expect(quota.reads).toBe(2)
  expect(cache.statistics()).toEqual({ hits: 1, misses: 11, expired: 0, hitRate: 1 / 12 })
})

test('what was reserved is counted before the users service is asked again', async () => {
  const { cache, quota, someone } = bed
  const userId = someone()
  await cache.check(userId, phone)
  for (const devices of [1, 2, 3]) {
    await cache.addPhone(userId, phone)
    expect((await cache.quotaOf(userId)).user.used).toEqual({
      ...{ devices, cpu: 2 * devices, memory: 4_096 * devices, storage: 8_192 * devices, sessions: 0 },
    })
  }
  const { excess, source } = await cache.check(userId, phone)
  expect(excess).toEqual({ whose: 'user', resource: 'devices', limit: 3, used: 3, asked: 1 })
  expect([source, quota.reads]).toEqual(['cache', 1])
  expect((await cache.quotaOf(userId)).tenant.used.devices).toBe(3)
})

test('only what was read a moment ago refuses without asking', async () => {
  const { cache, clock, someone } = bed
  const userId = someone({ ...nothing, devices: 2, cpu: 15 })
  expect(await cache.refusal(userId, phone)).toBeUndefined()
  await cache.refresh(userId)
  const refused = { whose: 'user', resource: 'cpu', limit: 16, used: 15, asked: 2 }
  expect(await cache.refusal(userId, phone)).toEqual(refused)
  expect(await cache.refusal(userId, { ...phone, cpuCores: 1 })).toBeUndefined()
  await clock.advance(2_001)
  expect(await cache.refusal(userId, phone)).toBeUndefined()
  expect((await cache.check(userId, phone)).excess).toEqual(refused)
})

test('while nobody answers an expired entry does, and without one it is said so', async () => {
  const { cache, clock, quota, someone } = bed
  const [known, unknown] = [someone({ ...nothing, devices: 1 }), someone()]
  await cache.check(known, phone)
  quota.isAway = true
  await clock.advance(3_600_000)
  expect(await cache.check(known, phone)).toMatchObject({
    source: 'expired',
    quota: { user: { used: { devices: 1 } } },
  })
  await expect(cache.check(unknown, phone)).rejects.toMatchObject({
    status: 503,
    code: 'service_unavailable',
  })
  quota.isAway = false
  expect(await cache.check(known, phone)).toMatchObject({ source: 'users' })
})

test('changed limits are asked for at once, and old ones are no answer any more', async () => {
  const { cache, quota, someone, tenantId } = bed
  const userId = someone()
  await cache.check(userId, phone)
  quota.books.get(userId)!.limits = { ...limits, maxDevices: 0 }
  await cache.forgetUser(userId)
  expect((await cache.check(userId, phone)).excess).toMatchObject({ resource: 'devices', limit: 0 })
  await cache.forgetTenant(tenantId)
  expect((await cache.check(userId, phone)).source).toBe('users')
  await cache.expire(userId)
  expect((await cache.check(userId, phone)).source).toBe('users')
  quota.isAway = true
  await cache.forgetUser(userId)
  await expect(cache.check(userId, phone)).rejects.toMatchObject({ code: 'service_unavailable' })
})
