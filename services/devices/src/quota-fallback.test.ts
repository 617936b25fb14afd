import { platformRoutes } from '@cloudphone/contracts/api/platform-api'
import { UserQuotaUpdated } from '@cloudphone/contracts/events/user-events'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type DevicesBed, openDevicesBed } from './testing/devices-bed.ts'
import type { Person } from './testing/neighbours.ts'

const limits = { maxDevices: 20, maxCpu: 400, maxMemory: 800_000, maxStorage: 800_000, maxSessions: 5 }
const nothing = { devices: 0, cpu: 0, memory: 0, storage: 0, sessions: 0 }

let bed: DevicesBed
beforeAll(async () => {
  bed = await openDevicesBed({ QUOTA_ALLOW_ON_ERROR: 'true', DEVICES_QUOTA_SETTLE_MS: '50' })
})
afterAll(() => bed[Symbol.asyncDispose]())

function somebody(maxDevices = limits.maxDevices): Person {
  const person = bed.neighbours.person('member')
  const { userId, tenantId } = person
  bed.neighbours.door.books.set(userId, { tenantId, limits: { ...limits, maxDevices }, used: nothing })
  return person
}

const ask = (person: Person) =>
  bed.ask<{ sagaId: string; device: { id: string } }>(person, 'POST', '/api/devices', {
    body: { name: 'phone', resolution: '360x640' },
  })

const unsettled = async () =>
  (await bed.database.kysely.selectFrom('quota_grants').select('device_id').execute()).map(
    (row) => row.device_id,
  )

test('while the users service is away five phones of a user are made, and counted when it is back', async () => {
  const alice = somebody()
  const { door } = bed.neighbours
  door.isAway = true
  const answers = await Promise.all(Array.from({ length: 9 }, () => ask(alice)))
  const made = answers.filter(({ status }) => status === 202).map(({ data }) => data)
  expect(made).toHaveLength(5)
  for (const { status, problem } of answers.filter((one) => one.status !== 202)) {
    expect([status, problem.code]).toEqual([503, 'quota_unsettled'])
  }
  for (const { sagaId } of made) expect((await bed.ended(alice, sagaId)).status).toBe('COMPLETED')
  const ids = made.map(({ device }) => device.id).toSorted()
  expect((await unsettled()).toSorted()).toEqual(ids)
  const { claims } = await bed.scheduler.call(platformRoutes('devices').invariants)
  expect(claims.filter(({ id }) => ids.includes(id))).toEqual([])
  door.isAway = false
  await bed.until('the settlement', async () => (await unsettled()).length === 0)
  expect(ids.map((id) => bed.neighbours.quota.get(id))).toEqual(ids.map(() => 'committed'))
  expect((await ask(alice)).status).toBe(202)
})

test('what was known last still refuses, and what is refused when it is settled stays and is tried again', async () => {
  const { door, poor } = bed.neighbours
  const bob = somebody(1)
  const { sagaId } = await bed.create(bob)
  expect((await bed.ended(bob, sagaId)).status).toBe('COMPLETED')
  await bed.ask(bob, 'GET', '/api/quota/check')
  const carol = somebody()
  door.isAway = true
  expect(await ask(bob)).toMatchObject({
    ...{
      status: 403,
      problem: { code: 'quota_exceeded', whose: 'user', resource: 'devices', limit: 1, used: 1 },
    },
  })
  const late = await bed.create(carol)
  expect((await bed.ended(carol, late.sagaId)).status).toBe('COMPLETED')
  poor.add(carol.userId)
  door.isAway = false
  await bed.until('a refused settlement', async () => {
    const rows = await bed.database.kysely.selectFrom('quota_grants').select('refused_at').execute()
    return rows.length === 1 && rows[0]?.refused_at !== null
  })
  poor.delete(carol.userId)
  await bed.until('the settlement', async () => (await unsettled()).length === 0)
  expect(bed.neighbours.quota.get(late.device.id)).toBe('committed')
})

test('a phone that is deleted before it was settled leaves nothing to settle', async () => {
  const { door } = bed.neighbours
  const dave = somebody()
  door.isAway = true
  const { sagaId, device } = await bed.create(dave)
  await bed.ended(dave, sagaId)
  const removal = await bed.ask<{ sagaId: string }>(dave, 'DELETE', `/api/devices/${device.id}`)
  expect(removal.status).toBe(202)
  door.isAway = false
  expect((await bed.ended(dave, removal.data.sagaId)).status).toBe('COMPLETED')
  expect(await unsettled()).toEqual([])
  expect(bed.neighbours.quota.get(device.id)).toBe('released')
})

test('a check is answered out of the cache until the limits change', async () => {
  const erin = somebody()
  const check = async () => (await bed.ask<Record<string, unknown>>(erin, 'GET', '/api/quota/check')).data
  expect(await check()).toMatchObject({ fits: true, excess: null, source: 'users', user: { limits } })
  expect(await check()).toMatchObject({ source: 'cache' })
  const { userId, tenantId } = erin
  bed.neighbours.door.books.get(userId)!.limits = { ...limits, maxDevices: 0 }
  await bed.town.publish(UserQuotaUpdated, {
    ...{ aggregateId: userId, payload: { userId, tenantId, ...limits, maxDevices: 0 } },
  })
  await bed.town.drain()
  expect(await check()).toMatchObject({
    ...{
      fits: false,
      source: 'users',
      excess: { whose: 'user', resource: 'devices', limit: 0, used: 0, asked: 1 },
    },
  })
  const metrics = await (await fetch(`${bed.running.address}/metrics`)).text()
  expect(metrics).toMatch(/devices_quota_cache_hit_ratio\{[^}]*\} 0\.\d+/)
  expect(metrics).toMatch(/devices_quota_unsettled\{[^}]*\} 0/)
})
