import { randomUUID } from 'node:crypto'
import { platformRoutes } from '@cloudphone/contracts/api/platform-api'
import * as quotaApi from '@cloudphone/contracts/api/quota-api'
import * as api from '@cloudphone/contracts/api/users-api'
import type { RunningService } from '@cloudphone/runtime/host'
import type { ServiceClient } from '@cloudphone/runtime/service-client'
import { ask as askAt } from '@cloudphone/testing/ask'
import { openTown, type Town } from '@cloudphone/testing/town'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { users } from './service.ts'

const admin = { email: 'admin@example.com', password: 'a quite long secret' }

let town: Town
let instances: readonly RunningService[]
let devices: ServiceClient

beforeAll(async () => {
  town = await openTown({
    env: {
      CLOUDPHONE_ADMIN_EMAIL: admin.email,
      CLOUDPHONE_ADMIN_PASSWORD: admin.password,
      USERS_DEFAULT_MAX_DEVICES: '3',
    },
  })
  instances = await Promise.all([town.start(users), town.start(users)])
  devices = town.clientOf('devices')
})
afterAll(() => town?.close())

const ask = (at: number, method: string, path: string, more: { token?: string; body?: unknown } = {}) =>
  askAt(instances[at]!.address, { method, path, ...more })

test('a sign-in at one instance is good at the other, and its session moves on there', async () => {
  const signedIn = await ask(0, 'POST', '/api/auth/login', {
    body: { ...admin, email: admin.email.toUpperCase() },
  })
  expect(signedIn).toMatchObject({
    status: 200,
    body: { success: true, data: { tokenType: 'Bearer', expiresIn: 900, user: { role: 'admin' } } },
  })
  const { accessToken: token, refreshToken } = signedIn.body.data
  const me = await ask(1, 'GET', '/api/auth/me', { token })
  expect(me).toMatchObject({ status: 200, body: { data: { email: admin.email } } })
  expect(me.body.data.permissions).toContain('users:manage')
  const refreshed = await ask(1, 'POST', '/api/auth/refresh', { body: { refreshToken } })
  expect(refreshed.status).toBe(200)
  expect(await ask(0, 'POST', '/api/auth/refresh', { body: { refreshToken } })).toMatchObject({
    status: 401,
    body: { success: false, code: 'invalid_refresh_token' },
  })
  const out = await ask(0, 'POST', '/api/auth/logout', {
    body: { refreshToken: refreshed.body.data.refreshToken },
  })
  expect(out).toMatchObject({ status: 204, body: undefined })
})

test('who may not manage users may not make or list them', async () => {
  const { token } = await signIn(admin)
  const email = `${randomUUID()}@example.com`
  const password = 'plain words of a member'
  const made = await ask(0, 'POST', '/api/users', { token, body: { email, password, name: 'Member' } })
  expect(made).toMatchObject({ status: 201, body: { data: { email, role: 'member', status: 'active' } } })
  expect(JSON.stringify(made.body)).not.toContain('argon2')
  const member = await signIn({ email, password })
  expect(await ask(0, 'GET', '/api/users', { token: member.token })).toMatchObject({
    status: 403,
    body: { code: 'forbidden' },
  })
  const listed = await ask(1, 'GET', '/api/users?limit=1', { token })
  expect(listed.body).toMatchObject({
    success: true,
    data: [{ email }],
    page: { nextCursor: expect.any(String) },
  })
  const rest = await ask(1, 'GET', `/api/users?cursor=${listed.body.page.nextCursor}`, { token })
  expect(rest.body.data.map((user: { email: string }) => user.email)).toContain(admin.email)
})

test('quota is taken through one instance, kept through the other, and seen by its owner and the doctor', async () => {
  const { token, userId } = await signIn(admin)
  const ids = [randomUUID(), randomUUID(), randomUUID(), randomUUID()]
  const portion = { userId: userId as never, cpu: 2, memory: 4_096, storage: 10_240, ttlSeconds: 600 }
  const answers = await Promise.allSettled(
    ids.map((reservationId) => devices.call(quotaApi.ReserveQuota, { body: { reservationId, ...portion } })),
  )
  const held = ids.filter((_id, index) => answers[index]?.status === 'fulfilled')
  expect(held).toHaveLength(3)
  expect(answers.find(({ status }) => status === 'rejected')).toMatchObject({
    reason: { code: 'quota_exceeded', status: 403, members: { limit: 3 } },
  })
  await devices.call(quotaApi.CommitQuota, { params: { reservationId: held[0]! } })
  await devices.call(quotaApi.ReleaseQuota, { params: { reservationId: held[1]! } })
  const quota = await ask(1, 'GET', `/api/users/${userId}/quota`, { token })
  expect(quota.body.data).toMatchObject({ limits: { maxDevices: 3 }, used: { devices: 2, cpu: 4 } })
  const judged = await devices.call(platformRoutes('users').invariants)
  expect(judged.claims.toSorted((a, b) => (a.detail < b.detail ? -1 : 1))).toEqual([
    { kind: 'quota', id: held[0], detail: 'committed' },
    { kind: 'quota', id: held[2], detail: 'reserved' },
  ])
  expect(judged.reports.find(({ invariant }) => invariant === 3)).toMatchObject({ holds: true })
})

test('an API key is exchanged between services only', async () => {
  const { token } = await signIn(admin)
  const made = await ask(0, 'POST', '/api/api-keys', { token, body: { name: 'robot', expiresInDays: 30 } })
  expect(made).toMatchObject({ status: 201, body: { data: { key: expect.stringMatching(/^cpk_/) } } })
  const { key, id } = made.body.data
  const { accessToken } = await devices.call(api.ExchangeApiKey, { body: { key } })
  expect((await ask(1, 'GET', '/api/auth/me', { token: accessToken })).status).toBe(200)
  const forged = await ask(0, 'POST', '/internal/api-keys/exchange', { token, body: { key } })
  expect(forged.status).toBe(401)
  expect((await ask(1, 'DELETE', `/api/api-keys/${id}`, { token })).status).toBe(204)
  await expect(devices.call(api.ExchangeApiKey, { body: { key } })).rejects.toMatchObject({
    code: 'invalid_api_key',
  })
})

async function signIn(who: { email: string; password: string }): Promise<{ token: string; userId: string }> {
  const { body } = await ask(0, 'POST', '/api/auth/login', { body: who })
  return { token: body.data.accessToken, userId: body.data.user.id }
}
