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
  const claims = JSON.parse(Buffer.from(accessToken.split('.')[1]!, 'base64url').toString())
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
