import { openTokenVerifier } from '@cloudphone/runtime/tokens'
import { expect, test } from 'vitest'
import { listPublicKeys } from '../db/signing-key-repo.ts'
import { openUsersRoom, type UsersRoom } from '../testing/users-room.ts'

const states = async (room: UsersRoom) =>
  (await room.signingKeys.list()).map(({ active, goneAt }) =>
    active ? 'active' : goneAt === null ? 'next' : 'retired',
  )

async function signIn(room: UsersRoom, email: string) {
  const { accessToken } = await room.sessions.login({ email, password: room.password })
  const kid: string = JSON.parse(Buffer.from(accessToken.split('.')[0] ?? '', 'base64url').toString()).kid
  return { accessToken, kid }
}

const verifierOf = (room: UsersRoom) =>
  openTokenVerifier({
    fetchKeys: async () => ({ keys: (await listPublicKeys(room.database.kysely)) as never }),
    now: () => room.clock.now(),
  })

test('a new key is published, then used; the old one’s tokens are good until they expire', async () => {
  await using room = await openUsersRoom()
  const { email } = await room.account('a@example.com')
  const before = await signIn(room, email)
  const next = await room.signingKeys.rotate()
  await expect(room.signingKeys.rotate()).rejects.toMatchObject({ status: 409, code: 'rotation_under_way' })
  expect(await states(room)).toEqual(['next', 'active'])
  await room.signingKeys.tend()
  expect((await signIn(room, email)).kid).toBe(before.kid)
  await room.clock.advance(11_000)
  await Promise.all([room.signingKeys.tend(), room.signingKeys.tend()])
  expect(await states(room)).toEqual(['active', 'retired'])
  const after = await signIn(room, email)
  expect(after.kid).toBe(next.kid)
  const verifier = verifierOf(room)
  await expect(verifier.verify(before.accessToken)).resolves.toBeDefined()
  await expect(verifier.verify(after.accessToken)).resolves.toBeDefined()
  await room.clock.advance(961_000)
  await room.signingKeys.tend()
  expect(await states(room)).toEqual(['active'])
})

test('a compromised key ends at once, with every token it signed', async () => {
  await using room = await openUsersRoom()
  const { email } = await room.account('a@example.com')
  const before = await signIn(room, email)
  const key = await room.signingKeys.replaceCompromised()
  await expect(verifierOf(room).verify(before.accessToken)).rejects.toMatchObject({ code: 'invalid_token' })
  const after = await signIn(room, email)
  expect(after.kid).toBe(key.kid)
  await expect(verifierOf(room).verify(after.accessToken)).resolves.toBeDefined()
})

test('an old key is changed by itself, once', async () => {
  await using room = await openUsersRoom()
  const { email } = await room.account('a@example.com')
  await signIn(room, email)
  await room.clock.advance(91 * 86_400_000)
  await Promise.allSettled([room.signingKeys.tend(), room.signingKeys.tend()])
  expect(await states(room)).toEqual(['next', 'active'])
  await room.clock.advance(11_000)
  await room.signingKeys.tend()
  expect(await states(room)).toEqual(['active', 'retired'])
  await room.signingKeys.tend()
  expect(await states(room)).toEqual(['active', 'retired'])
})
