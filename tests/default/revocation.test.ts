import type { ServiceName } from '@cloudphone/contracts/services'
import type { RunningService } from '@cloudphone/runtime/host'
import { roster } from '@cloudphone/server/roster'
import { ask as askAt } from '@cloudphone/testing/ask'
import { present } from '@cloudphone/testing/present'
import { openTown, type Town } from '@cloudphone/testing/town'
import { io, type Socket } from 'socket.io-client'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { until } from '../src/until.ts'

/* What ends a session, a key or a token, ends it at every service and for every open socket. */

const admin = { email: 'admin@example.com', password: 'a quite long secret' }

let town: Town
let door: RunningService
const sockets: Socket[] = []

beforeAll(async () => {
  town = await openTown({
    env: {
      CLOUDPHONE_ADMIN_EMAIL: admin.email,
      CLOUDPHONE_ADMIN_PASSWORD: admin.password,
      USERS_EXPIRY_EVERY_MS: '100',
      ...{ GATEWAY_LIMIT_PER_SECOND: '0', GATEWAY_LIMIT_PER_10_SECONDS: '0', GATEWAY_LIMIT_PER_MINUTE: '0' },
    },
  })
  const start = (name: ServiceName) => town.start(present(roster.find((one) => one.name === name)))
  await Promise.all([start('users'), start('users'), start('notifications')])
  door = await start('gateway')
})
afterAll(async () => {
  for (const socket of sockets) socket.close()
  await town?.close()
})

const ask = (method: string, path: string, more: { token?: string; body?: unknown } = {}) =>
  askAt(door.address, { method, path, ...more })

async function signIn() {
  const { body } = await ask('POST', '/api/auth/login', { body: admin })
  const { accessToken: token, refreshToken, user } = body.data
  const claims = JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString())
  return { token, refreshToken, userId: user.id as string, sessionId: claims.sid as string }
}

/** A socket through the gateway; `ended` resolves when the other side ends it. */
async function listen(token: string): Promise<{ ended: Promise<string> }> {
  const socket = io(`${door.address}/notifications`, {
    transports: ['websocket'],
    auth: { token },
    reconnection: false,
  })
  sockets.push(socket)
  const ended = new Promise<string>((resolve) => socket.once('disconnect', resolve))
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('connect_error', reject)
  })
  return { ended }
}

/** Resolves with the code by which the notifications service refuses the token in the end. */
const refusal = (token: string) =>
  until('the token to be refused', async () => {
    const answer = await ask('GET', '/api/notifications', { token })
    return answer.status === 401 ? (answer.body.code as string) : undefined
  })

test('a session that is revoked ends everywhere, its open sockets too, and no other', async () => {
  const [one, other] = [await signIn(), await signIn()]
  const [doomed, lucky] = [await listen(one.token), await listen(other.token)]
  const path = `/api/users/${one.userId}/sessions/${one.sessionId}`
  expect((await ask('DELETE', path, { token: other.token })).status).toBe(204)
  expect(await doomed.ended).toBe('io server disconnect')
  expect(await refusal(one.token)).toBe('token_revoked')
  const refreshed = await ask('POST', '/api/auth/refresh', { body: { refreshToken: one.refreshToken } })
  expect(refreshed).toMatchObject({ status: 401, body: { code: 'invalid_refresh_token' } })
  expect((await ask('GET', '/api/notifications', { token: other.token })).status).toBe(200)
  await ask('POST', '/api/auth/logout', { body: { refreshToken: other.refreshToken } })
  expect(await lucky.ended).toBe('io server disconnect')
})

test('a key that is deleted ends everywhere', async () => {
  const { token } = await signIn()
  const body = { name: 'ci', scopes: ['notifications:use', 'devices:read'] }
  const { key, id } = (await ask('POST', '/api/api-keys', { token, body })).body.data
  expect((await ask('GET', '/api/notifications', { token: key })).status).toBe(200)
  const beyond = await ask('GET', '/api/users', { token: key })
  expect(beyond).toMatchObject({ status: 403, body: { code: 'forbidden' } })
  expect((await ask('POST', '/api/api-keys', { token: key, body })).status).toBe(403)
  expect((await ask('DELETE', `/api/api-keys/${id}`, { token })).status).toBe(204)
  expect(['token_revoked', 'invalid_api_key']).toContain(await refusal(key))
})

test('a key that is rotated without overlap ends everywhere at once; the new one serves', async () => {
  const { token } = await signIn()
  const made = await ask('POST', '/api/api-keys', { token, body: { name: 'ci' } })
  const { key: old, id } = made.body.data
  expect((await ask('GET', '/api/notifications', { token: old })).status).toBe(200)
  const body = { overlapSeconds: 0 }
  const { key } = (await ask('POST', `/api/api-keys/${id}/rotate`, { token, body })).body.data
  expect(['token_revoked', 'invalid_api_key']).toContain(await refusal(old))
  expect((await ask('GET', '/api/notifications', { token: key })).status).toBe(200)
})

test('a key goes on when its owner’s role changes, with the new role’s rights', async () => {
  const { token } = await signIn()
  const account = { email: 'owner@example.com', password: 'a quite long secret' }
  const created = await ask('POST', '/api/users', { token, body: { ...account, name: 'Owner' } })
  const owner = created.body.data.id as string
  const signedIn = await ask('POST', '/api/auth/login', { body: account })
  const own = { token: signedIn.body.data.accessToken as string, body: { name: 'ci' } }
  const { key } = (await ask('POST', '/api/api-keys', own)).body.data
  expect((await ask('GET', '/api/users', { token: key })).status).toBe(403)
  await ask('PATCH', `/api/users/${owner}`, { token, body: { role: 'admin' } })
  await until('the key to have the new role', async () => {
    return (await ask('GET', '/api/users', { token: key })).status === 200
  })
})

test('a signing key changes without anybody noticing; a compromised one takes its tokens along', async () => {
  const before = await signIn()
  const keys = async () => (await ask('GET', '/api/auth/jwks')).body.data.keys as { kid: string }[]
  const [old] = await keys()
  const made = await ask('POST', '/api/signing-keys/rotate', { token: before.token, body: {} })
  expect(made).toMatchObject({ status: 201, body: { data: { state: 'next' } } })
  await town.moveTime(11_000)
  await until('the new key to be the active one', async () => {
    const { body } = await ask('GET', '/api/signing-keys', { token: before.token })
    return body.data.some(({ kid, state }: { kid: string; state: string }) => {
      return kid === made.body.data.kid && state === 'active'
    })
  })
  expect((await keys()).map(({ kid }) => kid)).toContain(old?.kid)
  const after = await signIn()
  for (const { token } of [before, after]) {
    expect((await ask('GET', '/api/notifications', { token })).status).toBe(200)
  }
  const body = { compromised: true }
  expect((await ask('POST', '/api/signing-keys/rotate', { token: after.token, body })).status).toBe(201)
  for (const { token } of [before, after]) expect(await refusal(token)).toBe('invalid_token')
  const fresh = await until('a sign-in by the new key to be accepted', async () => {
    const { token } = await signIn()
    return (await ask('GET', '/api/notifications', { token })).status === 200 && token
  })
  expect((await ask('GET', '/api/auth/me', { token: fresh })).status).toBe(200)
})
