import { present } from '@cloudphone/testing/present'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { callerOf, openUsersRoom, type UsersRoom } from '../testing/users-room.ts'

let room: UsersRoom
beforeAll(async () => {
  room = await openUsersRoom()
})
afterAll(() => room[Symbol.asyncDispose]())

const refused = { status: 401, code: 'invalid_api_key' }

test('a key is shown once, kept as a hash, and exchanged for a token of its owner', async () => {
  const account = await room.account('robot@example.com', 'operator')
  const made = await room.apiKeys.create(callerOf(account), { name: 'ci' })
  expect(made.key).toMatch(/^cpk_[\w-]{43}$/)
  expect(made.key.startsWith(made.prefix)).toBe(true)
  const stored = await room.database.kysely.selectFrom('api_keys').selectAll().execute()
  expect(JSON.stringify(stored)).not.toContain(made.key)
  const { accessToken, expiresIn } = await room.apiKeys.exchange(made.key)
  const claims = JSON.parse(Buffer.from(present(accessToken.split('.')[1]), 'base64url').toString())
  expect(claims).toMatchObject({ sub: account.id, tid: account.tenantId, role: 'operator', sid: made.id })
  expect(claims.exp - claims.iat).toBe(expiresIn)
  const [listed] = await room.apiKeys.list(callerOf(account), { beforeId: undefined, limit: 10 })
  expect(listed).toMatchObject({ id: made.id, lastUsedAt: expect.any(Date) })
  expect(listed).not.toHaveProperty('key')
})

test('unknown, expired and revoked keys, and those of suspended users, are refused alike', async () => {
  const account = await room.account('keys@example.com')
  const caller = callerOf(account)
  const short = await room.apiKeys.create(caller, { name: 'short', expiresInDays: 1 })
  const long = await room.apiKeys.create(caller, { name: 'long' })
  const gone = await room.apiKeys.create(caller, { name: 'gone' })
  await room.apiKeys.delete(caller, gone.id)
  await room.clock.advance(86_400_000)
  for (const key of [short.key, gone.key, `cpk_${'x'.repeat(43)}`, 'x']) {
    await expect(room.apiKeys.exchange(key)).rejects.toMatchObject(refused)
  }
  await room.apiKeys.exchange(long.key)
  await room.suspend(account)
  await expect(room.apiKeys.exchange(long.key)).rejects.toMatchObject(refused)
})

test('nobody revokes another’s key', async () => {
  const owner = callerOf(await room.account('owner@example.com'))
  const admin = callerOf(await room.account('admin@example.com', 'admin'))
  const { id, key } = await room.apiKeys.create(owner, { name: 'mine' })
  await expect(room.apiKeys.delete(admin, id)).rejects.toMatchObject({ code: 'api_key_not_found' })
  await room.apiKeys.exchange(key)
})

const claimsIn = (token: string) =>
  JSON.parse(Buffer.from(present(token.split('.')[1]), 'base64url').toString())

test('a key holds its scopes, else all that the role may but for the owner’s credentials', async () => {
  const caller = callerOf(await room.account('scoped@example.com'))
  const narrow = await room.apiKeys.create(caller, { name: 'narrow', scopes: ['devices:read'] })
  const wide = await room.apiKeys.create(caller, { name: 'wide' })
  expect(narrow.scopes).toEqual(['devices:read'])
  expect(wide.scopes).toBeNull()
  const narrowly = claimsIn((await room.apiKeys.exchange(narrow.key)).accessToken)
  expect(narrowly.scp).toEqual(['devices:read'])
  const widely = claimsIn((await room.apiKeys.exchange(wide.key)).accessToken)
  expect(widely.scp).toContain('devices:use')
  expect(widely.scp).not.toContain('account:manage')
  expect(widely.scp).not.toContain('users:manage')
})

test('nobody gives a key more than he holds', async () => {
  const member = callerOf(await room.account('modest@example.com'))
  const tooMuch = room.apiKeys.create(member, { name: 'x', scopes: ['users:manage'] })
  await expect(tooMuch).rejects.toMatchObject({ status: 403, code: 'scope_not_held' })
  const narrowed = { ...member, scopes: ['account:manage', 'devices:read'] as const }
  const wider = room.apiKeys.create(narrowed, { name: 'x', scopes: ['devices:use'] })
  await expect(wider).rejects.toMatchObject({ code: 'scope_not_held' })
  expect((await room.apiKeys.create(narrowed, { name: 'x' })).scopes).toEqual(narrowed.scopes)
})

test('a key and its successor both work during the overlap, and then the successor alone', async () => {
  const caller = callerOf(await room.account('rotating@example.com'))
  const wanted = { name: 'ci', expiresInDays: 30, scopes: ['devices:read'] as const }
  const old = await room.apiKeys.create(caller, wanted)
  await room.clock.advance(10 * 86_400_000)
  const next = await room.apiKeys.rotate(caller, old.id, 3_600)
  expect(next).toMatchObject({ name: 'ci', scopes: ['devices:read'], lastUsedAt: null })
  const exchanged = await room.apiKeys.exchange(old.key)
  expect(exchanged.expiresIn).toBe(120)
  await room.clock.advance(3_550_000)
  // The last token of a key ends with the key.
  expect((await room.apiKeys.exchange(old.key)).expiresIn).toBeLessThanOrEqual(50)
  await room.clock.advance(60_000)
  await expect(room.apiKeys.exchange(old.key)).rejects.toMatchObject(refused)
  await expect(room.apiKeys.rotate(caller, old.id, 0)).rejects.toMatchObject({ code: 'api_key_not_found' })
  const stranger = callerOf(await room.account('thief@example.com'))
  await expect(room.apiKeys.rotate(stranger, next.id, 0)).rejects.toMatchObject({ code: 'api_key_not_found' })
  const last = await room.apiKeys.rotate(caller, next.id, 0)
  await expect(room.apiKeys.exchange(next.key)).rejects.toMatchObject(refused)
  await room.apiKeys.exchange(last.key)
})
