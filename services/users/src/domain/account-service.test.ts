import type { UserId } from '@cloudphone/contracts/id'
import { systemIds } from '@cloudphone/contracts/id'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { callerOf, openUsersRoom, type UsersRoom } from '../testing/users-room.ts'
import { ensureSigningKey } from './signing-key.ts'

let room: UsersRoom
beforeAll(async () => {
  room = await openUsersRoom()
})
afterAll(() => room[Symbol.asyncDispose]())

test('instances that start together make one administrator, who is never overwritten', async () => {
  const admin = { email: 'boss@example.com', password: 'a quite long secret' }
  await Promise.all(Array.from({ length: 5 }, () => room.accounts.ensureAdmin(admin)))
  await room.accounts.ensureAdmin({ ...admin, password: 'another long secret' })
  const { account } = await room.sessions.login(admin)
  expect(account).toMatchObject({ role: 'admin', email: admin.email, status: 'active' })
  const events = (await room.events()).filter(({ aggregate_id }) => aggregate_id === account.id)
  expect(events).toEqual([
    {
      event_type: 'user.created',
      aggregate_id: account.id,
      payload: { userId: account.id, tenantId: account.tenantId, email: admin.email, role: 'admin' },
    },
  ])
})

test('instances that start together sign with one key', async () => {
  const telemetry = { signingKeyMade: () => undefined }
  await using other = await openUsersRoom()
  await other.database.kysely.deleteFrom('signing_keys').execute()
  const keys = await Promise.all(
    Array.from({ length: 8 }, () => ensureSigningKey(other.database.kysely, telemetry)),
  )
  expect(new Set(keys.map(({ kid }) => kid)).size).toBe(1)
  expect(keys[0]?.privateJwk).toMatchObject({ kty: 'OKP', crv: 'Ed25519', d: expect.any(String) })
})

test('an e-mail has one account, whatever the tenant', async () => {
  const account = await room.account('once@example.com', 'admin')
  const again = { email: account.email, password: room.password, name: 'Another', role: 'member' as const }
  await expect(room.accounts.create(callerOf(account), again)).rejects.toMatchObject({
    status: 409,
    code: 'email_taken',
  })
  await expect(room.account(account.email, 'member', 'elsewhere')).rejects.toMatchObject({
    code: 'email_taken',
  })
})

test('a password that is easy to guess is refused with the reason', async () => {
  const admin = callerOf(await room.account('chief@example.com', 'admin'))
  await expect(
    room.accounts.create(admin, {
      email: 'a@b.example',
      password: 'Passw0rd1234',
      name: 'A',
      role: 'member',
    }),
  ).rejects.toMatchObject({ status: 422, code: 'weak_password', message: expect.stringContaining('guessed') })
})

test('one sees oneself; who manages users sees the tenant; nobody sees another tenant', async () => {
  const member = await room.account('member@example.com')
  const admin = await room.account('admin@example.com', 'admin')
  const stranger = await room.account('stranger@example.com', 'admin', 'strangers')
  expect(await room.accounts.get(callerOf(member), member.id)).toEqual(member)
  expect(await room.accounts.get(callerOf(admin), member.id)).toEqual(member)
  await expect(room.accounts.get(callerOf(member), admin.id)).rejects.toMatchObject({ status: 403 })
  await expect(room.accounts.get(callerOf(stranger), member.id)).rejects.toMatchObject({
    status: 404,
    code: 'user_not_found',
  })
  const unknown: UserId = systemIds.next<'user'>()
  await expect(room.accounts.get(callerOf(member), unknown)).rejects.toMatchObject({ status: 404 })
  const seen = await room.accounts.list(callerOf(stranger), { beforeId: undefined, limit: 50 })
  expect(seen.map(({ id }) => id)).toEqual([stranger.id])
})

test('the list of a tenant pages by id, the newest first', async () => {
  const first = await room.account('p1@example.com', 'admin', 'pages')
  const second = await room.account('p2@example.com', 'member', 'pages')
  const third = await room.account('p3@example.com', 'member', 'pages')
  const caller = callerOf(first)
  const page = await room.accounts.list(caller, { beforeId: undefined, limit: 1 })
  expect(page.map(({ id }) => id)).toEqual([third.id, second.id])
  const rest = await room.accounts.list(caller, { beforeId: second.id, limit: 5 })
  expect(rest.map(({ id }) => id)).toEqual([first.id])
})

test('me answers what my role permits', async () => {
  const member = await room.account('rights@example.com')
  const { permissions } = await room.accounts.me(callerOf(member))
  expect(permissions).toContain('devices:use')
  expect(permissions).not.toContain('users:manage')
})
