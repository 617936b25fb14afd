import type { ServiceName } from '@cloudphone/contracts/services'
import type { RunningService } from '@cloudphone/runtime/host'
import { roster } from '@cloudphone/server/roster'
import { ask as askAt } from '@cloudphone/testing/ask'
import { present } from '@cloudphone/testing/present'
import { openTown, type Town } from '@cloudphone/testing/town'
import { sql } from 'kysely'
import { Secret, TOTP } from 'otpauth'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { tokenMailed } from '../src/mails.ts'
import { until } from '../src/until.ts'

/* How people get in and are kept out, through the gateway: two users services, mails in a folder. */

const admin = { email: 'admin@example.com', password: 'a quite long secret' }
const password = 'words of a new person'

let town: Town
let door: RunningService
let behind: RunningService

beforeAll(async () => {
  town = await openTown({
    env: {
      CLOUDPHONE_ADMIN_EMAIL: admin.email,
      CLOUDPHONE_ADMIN_PASSWORD: admin.password,
      ...{ MAIL_EVERY_MS: '100', USERS_EXPIRY_EVERY_MS: '100' },
      ...{ USERS_FREE_ATTEMPTS_PER_ACCOUNT: '5', USERS_FREE_ATTEMPTS_PER_ADDRESS: '3' },
      GATEWAY_TRUSTED_PROXIES: '127.0.0.1',
      ...{ GATEWAY_LIMIT_PER_SECOND: '0', GATEWAY_LIMIT_PER_10_SECONDS: '0', GATEWAY_LIMIT_PER_MINUTE: '0' },
    },
  })
  const start = (name: ServiceName) => town.start(present(roster.find((one) => one.name === name)))
  const [first] = await Promise.all([start('users'), start('users')])
  behind = first
  door = await start('gateway')
})
afterAll(() => town?.close())

interface More {
  token?: string
  body?: unknown
  /** As the proxy in front of the gateway tells it. */
  from?: string
}
const ask = (method: string, path: string, { from, ...more }: More = {}, at = door) =>
  askAt(at.address, { method, path, ...more, headers: { 'x-forwarded-for': from ?? '192.0.2.1' } })

async function signIn(who: { email: string; password: string; code?: string }): Promise<string> {
  const { status, body } = await ask('POST', '/api/auth/login', { body: who })
  expect(status, JSON.stringify(body)).toBe(200)
  return body.data.accessToken
}

const mailed = (to: string, count = 1) => tokenMailed(`${town.blobFolder}-mail`, to, count)

async function newcomer(email: string): Promise<{ token: string; userId: string }> {
  const token = await signIn(admin)
  const invited = await ask('POST', '/api/invitations', { token, body: { email, role: 'operator' } })
  expect(invited).toMatchObject({ status: 201, body: { data: { email, role: 'operator' } } })
  const accepted = await ask('POST', '/api/auth/invitations/accept', {
    body: { token: await mailed(email), name: 'Newcomer', password },
  })
  expect(accepted).toMatchObject({ status: 201, body: { data: { email, role: 'operator' } } })
  return { token: await signIn({ email, password }), userId: accepted.body.data.id }
}

test('who is invited gets in, and forgets the password, and gets in again', async () => {
  const email = 'newcomer@example.com'
  const { token } = await newcomer(email)
  expect((await ask('POST', '/api/auth/password/forgot', { body: { email } })).status).toBe(204)
  const body = { token: await mailed(email, 2), password: 'other words of a person' }
  expect((await ask('POST', '/api/auth/password/reset', { body })).status).toBe(204)
  await until(
    'the old token to be refused',
    async () => (await ask('GET', '/api/auth/me', { token })).status === 401,
  )
  await signIn({ email, password: body.password })
  expect(await ask('POST', '/api/auth/password/reset', { body })).toMatchObject({
    status: 410,
    body: { code: 'invalid_mail_token' },
  })
})

test('a second factor is asked for at the next sign-in', async () => {
  const email = 'careful@example.com'
  const { token } = await newcomer(email)
  const enrolled = await ask('POST', '/api/auth/second-factor', { token, body: { password } })
  const totp = new TOTP({ secret: Secret.fromBase32(enrolled.body.data.secret) })
  const confirmed = await ask('POST', '/api/auth/second-factor/confirm', {
    token,
    body: { code: totp.generate() },
  })
  expect(confirmed).toMatchObject({ status: 200, body: { data: { recoveryCodes: expect.any(Array) } } })
  expect(await ask('POST', '/api/auth/login', { body: { email, password } })).toMatchObject({
    status: 401,
    body: { code: 'second_factor_required' },
  })
  await signIn({ email, password, code: confirmed.body.data.recoveryCodes[0] })
})

test('a suspended account is out everywhere, and its administrator cannot leave the tenant without one', async () => {
  const { token, userId } = await newcomer('bad@example.com')
  const by = await signIn(admin)
  const body = { reason: 'does harm' }
  expect(await ask('POST', `/api/users/${userId}/suspend`, { token: by, body })).toMatchObject({
    status: 200,
    body: { data: { status: 'suspended' } },
  })
  await until(
    'the token to be refused',
    async () => (await ask('GET', '/api/auth/me', { token })).status === 401,
  )
  const own = (await ask('GET', '/api/auth/me', { token: by })).body.data.id
  expect(await ask('DELETE', `/api/users/${own}`, { token: by })).toMatchObject({
    status: 409,
    body: { code: 'last_admin' },
  })
  expect((await ask('DELETE', `/api/users/${userId}`, { token: by })).status).toBe(204)
})

test('attempts count by the address that the gateway tells, and nobody else', async () => {
  const attempt = (who: number, from: string, at = door) =>
    ask('POST', '/api/auth/login', { from, body: { email: `guess-${who}@example.com`, password } }, at)
  for (const who of [1, 2, 3]) expect((await attempt(who, '198.51.100.1')).status).toBe(401)
  const refused = await attempt(4, '198.51.100.1')
  expect(refused).toMatchObject({ status: 429, body: { code: 'too_many_attempts' } })
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
  expect((await attempt(5, '198.51.100.2')).status).toBe(401)
  // Past the gateway the header is only somebody's word: all of these count for this machine.
  for (const who of [6, 7, 8]) expect((await attempt(who, `198.51.100.${who}`, behind)).status).toBe(401)
  expect((await attempt(9, '198.51.100.9', behind)).status).toBe(429)
})

test('the platform’s administrators make tenants, whose administrators do not', async () => {
  const token = await signIn(admin)
  const body = { slug: 'acme', name: 'Acme', adminEmail: 'boss@acme.example' }
  const made = await ask('POST', '/api/tenants', { token, body })
  expect(made).toMatchObject({ status: 201, body: { data: { slug: 'acme', status: 'active' } } })
  const accept = { token: await mailed('boss@acme.example'), name: 'Boss', password }
  await ask('POST', '/api/auth/invitations/accept', { body: accept })
  const boss = await signIn({ email: 'boss@acme.example', password })
  expect((await ask('GET', '/api/tenants', { token: boss })).status).toBe(403)
  expect((await ask('GET', '/api/users', { token: boss })).body.data).toHaveLength(1)
  const { id } = made.body.data
  expect((await ask('POST', `/api/tenants/${id}/suspend`, { token })).status).toBe(200)
  await until(
    'the boss to be out',
    async () => (await ask('GET', '/api/users', { token: boss })).status === 401,
  )
})

test('a record names the address that the gateway vouches for, and no other that a header claims', async () => {
  const token = await signIn(admin)
  const invite = (email: string, from: string, at = door) =>
    ask('POST', '/api/invitations', { token, from, body: { email } }, at)
  const [vouched, forged] = [
    await invite('one@example.com', '192.0.2.7'),
    await invite('two@example.com', '203.0.113.66', behind),
  ]
  const { rows } = await sql<{ target: string; address: string }>`
    select target, address from audit_log where verb = 'invitation.create'`.execute(
    town.databaseOf('users').kysely,
  )
  expect(rows).toContainEqual({ target: vouched.body.data.id, address: '192.0.2.7' })
  expect(rows).toContainEqual({ target: forged.body.data.id, address: '127.0.0.1' })
})
