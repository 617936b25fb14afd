import { openTokenVerifier } from '@cloudphone/runtime/tokens'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { listPublicKeys } from '../db/signing-key-repo.ts'
import { openUsersRoom, type UsersRoom } from '../testing/users-room.ts'

let room: UsersRoom
beforeAll(async () => {
  room = await openUsersRoom()
})
afterAll(() => room[Symbol.asyncDispose]())

const day = 86_400_000
const refused = { status: 401, code: 'invalid_refresh_token' }

test('a sign-in answers tokens that every service accepts', async () => {
  const account = await room.account('in@example.com', 'operator')
  const grant = await room.sessions.login({ email: 'in@example.com', password: room.password })
  const verifier = openTokenVerifier({
    fetchKeys: async () => ({ keys: (await listPublicKeys(room.database.kysely)) as never }),
    now: () => room.clock.now(),
  })
  expect(await verifier.verify(grant.accessToken)).toEqual({
    userId: account.id,
    tenantId: account.tenantId,
    role: 'operator',
    isPlatform: true,
    sessionId: expect.stringMatching(/^[0-9a-f-]{36}$/),
  })
  expect(grant.expiresInSeconds).toBe(900)
  await room.clock.advance(901_000)
  await expect(verifier.verify(grant.accessToken)).rejects.toMatchObject({ code: 'token_expired' })
})

test('an unknown e-mail and a wrong password answer the same', async () => {
  await room.account('same@example.com')
  const answers = await Promise.allSettled([
    room.sessions.login({ email: 'same@example.com', password: 'not the password' }),
    room.sessions.login({ email: 'nobody@example.com', password: 'not the password' }),
  ])
  const seen = answers.map((answer) => {
    if (answer.status === 'fulfilled') throw new Error('signed in')
    const { status, code, message, members } = answer.reason
    return { status, code, message, members }
  })
  expect(seen[0]).toEqual(seen[1])
  expect(seen[0]).toMatchObject({ status: 401, code: 'invalid_credentials' })
})

test('a suspended account is told so only with its password', async () => {
  const account = await room.account('held@example.com')
  await room.suspend(account)
  const email = account.email
  await expect(room.sessions.login({ email, password: room.password })).rejects.toMatchObject({
    code: 'user_suspended',
  })
  await expect(room.sessions.login({ email, password: 'not the password' })).rejects.toMatchObject({
    code: 'invalid_credentials',
  })
})

test('each refresh token is good once; using one again ends the whole session', async () => {
  await room.account('thief@example.com')
  const first = await room.sessions.login({ email: 'thief@example.com', password: room.password })
  const second = await room.sessions.refresh(first.refreshToken)
  expect(second.refreshToken).not.toBe(first.refreshToken)
  const third = await room.sessions.refresh(second.refreshToken)
  await expect(room.sessions.refresh(first.refreshToken)).rejects.toMatchObject(refused)
  await expect(room.sessions.refresh(third.refreshToken)).rejects.toMatchObject(refused)
})

test('of many refreshes with one token at a time, one wins and its session ends', async () => {
  await room.account('race@example.com')
  const { refreshToken } = await room.sessions.login({ email: 'race@example.com', password: room.password })
  const answers = await Promise.allSettled(
    Array.from({ length: 8 }, () => room.sessions.refresh(refreshToken)),
  )
  const won = answers.filter((answer) => answer.status === 'fulfilled')
  expect(won).toHaveLength(1)
  await expect(room.sessions.refresh(won[0]!.value.refreshToken)).rejects.toMatchObject(refused)
})

test('the reuse of a token ends no other session of the same user', async () => {
  await room.account('two@example.com')
  const phone = await room.sessions.login({ email: 'two@example.com', password: room.password })
  const laptop = await room.sessions.login({ email: 'two@example.com', password: room.password })
  await room.sessions.refresh(phone.refreshToken)
  await expect(room.sessions.refresh(phone.refreshToken)).rejects.toMatchObject(refused)
  expect((await room.sessions.refresh(laptop.refreshToken)).account.email).toBe('two@example.com')
  const [record] = await room.audit.search({ verb: 'session.revoke_reused', limit: 1, after: undefined })
  expect(record).toMatchObject({ tenantId: phone.account.tenantId, outcome: 'done' })
  expect(record?.target).toBe(record?.sessionId)
})

test('signing out ends the session; unknown tokens mean nothing', async () => {
  await room.account('out@example.com')
  const { refreshToken } = await room.sessions.login({ email: 'out@example.com', password: room.password })
  await room.sessions.logout(refreshToken)
  await room.sessions.logout(refreshToken)
  await room.sessions.logout('no token at all')
  await expect(room.sessions.refresh(refreshToken)).rejects.toMatchObject(refused)
})

test('a session that is used lives on; one that is not expires after 30 days and is forgotten after 60', async () => {
  await room.account('slow@example.com')
  let { refreshToken } = await room.sessions.login({ email: 'slow@example.com', password: room.password })
  for (let month = 0; month < 3; month += 1) {
    await room.clock.advance(29 * day)
    refreshToken = (await room.sessions.refresh(refreshToken)).refreshToken
  }
  await room.clock.advance(31 * day)
  await expect(room.sessions.refresh(refreshToken)).rejects.toMatchObject(refused)
  await room.clock.advance(30 * day)
  await room.sessions.purge()
  expect(await room.database.kysely.selectFrom('refresh_tokens').selectAll().execute()).toEqual([])
})
