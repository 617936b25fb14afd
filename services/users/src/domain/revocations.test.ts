import { systemIds } from '@cloudphone/contracts/id'
import { present } from '@cloudphone/testing/present'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { callerOf, openUsersRoom, type UsersRoom } from '../testing/users-room.ts'

let room: UsersRoom
beforeAll(async () => {
  room = await openUsersRoom()
})
afterAll(() => room[Symbol.asyncDispose]())

const nobodyLeaves = new AbortController().signal
const look = (cursor?: string) => room.revocations.since(cursor, { waitMs: 0, signal: nobodyLeaves })
const revoke = async () => {
  const id = systemIds.next<'session'>()
  await room.database.transaction((tx) => room.revocations.revokeSession(tx, id))
  return { kind: 'session', id }
}

test('what is on the feed is told once, in its order', async () => {
  const { cursor } = await look()
  const [first, second] = [await revoke(), await revoke()]
  const told = await look(cursor)
  expect(told.revocations).toEqual([first, second])
  expect((await look(told.cursor)).revocations).toEqual([])
})

test('a transaction that commits late is met by who has read what came after it', async () => {
  const { cursor } = await look()
  const late = systemIds.next<'session'>()
  const written = Promise.withResolvers<void>()
  const mayCommit = Promise.withResolvers<void>()
  const slow = room.database.transaction(async (tx) => {
    await room.revocations.revokeSession(tx, late)
    written.resolve()
    await mayCommit.promise
  })
  await written.promise
  const quick = await revoke()
  const before = await look(cursor)
  expect(before.revocations).toEqual([quick])
  // The slow one holds the horizon back; what was told already is not told again.
  expect((await look(before.cursor)).revocations).toEqual([])
  mayCommit.resolve()
  await slow
  expect((await look(before.cursor)).revocations).toEqual([{ kind: 'session', id: late }])
})

test('who waits hears of a revocation when it is committed, and of nothing when the time is up', async () => {
  const { cursor } = await look()
  const hearing = room.revocations.since(cursor, { waitMs: 5_000, signal: nobodyLeaves })
  const gone = await revoke()
  const heard = await hearing
  expect(heard.revocations).toEqual([gone])
  const gaveUp = new AbortController()
  const vain = room.revocations.since(heard.cursor, { waitMs: 5_000, signal: gaveUp.signal })
  gaveUp.abort(new Error('gone'))
  expect((await vain).revocations).toEqual([])
})

test.each(['', 'x', '1;2', '-1', '99999999999999999999', '1.', "0'"])(
  'a cursor that was never given out, %j, starts from the beginning',
  async (cursor) => {
    await revoke()
    expect((await look(cursor)).revocations).toEqual((await look()).revocations)
  },
)

test('the tokens of a user are refused from an issue on, and the sessions are over', async () => {
  const account = await room.account('out@example.com')
  const grant = await room.sessions.login({ email: account.email, password: room.password })
  const { cursor } = await look()
  await room.database.transaction((tx) => room.revocations.revokeUser(tx, account.id))
  expect((await look(cursor)).revocations).toEqual([{ kind: 'user', id: account.id, epoch: 1 }])
  await expect(room.sessions.refresh(grant.refreshToken)).rejects.toMatchObject({
    code: 'invalid_refresh_token',
  })
  const again = await room.sessions.login({ email: account.email, password: room.password })
  expect(again.account.tokenEpoch).toBe(1)
})

test('what no token can be about any more is forgotten', async () => {
  await revoke()
  await room.clock.advance(1_201_000)
  const fresh = await revoke()
  await room.revocations.purge()
  expect((await look()).revocations).toEqual([fresh])
})

test('one ends one’s own sessions, and who manages users those of the tenant', async () => {
  const account = await room.account('many@example.com')
  const sign = () => room.sessions.login({ email: account.email, password: room.password })
  await Promise.all([sign(), sign(), sign()])
  const own = callerOf(account)
  const page = { beforeId: undefined, limit: 10 }
  const [first, second, third] = await room.sessions.list(own, account.id, page)
  const here = { ...own, sessionId: present(first).id }
  await room.sessions.revoke(here, account.id, present(second).id)
  await expect(room.sessions.revoke(here, account.id, present(second).id)).rejects.toMatchObject({
    code: 'session_not_found',
  })
  const colleague = callerOf(await room.account('colleague@example.com'))
  const viewer = callerOf(await room.account('viewer@example.com', 'viewer'))
  for (const other of [colleague, viewer]) {
    await expect(room.sessions.revoke(other, account.id, present(third).id)).rejects.toMatchObject({
      status: 403,
    })
  }
  expect(await room.sessions.list(viewer, account.id, page)).toHaveLength(2)
  const stranger = callerOf(await room.account('far@example.com', 'admin', 'far'))
  await expect(room.sessions.revokeAll(stranger, account.id)).rejects.toMatchObject({ status: 404 })
  expect(await room.sessions.revokeAll(here, account.id)).toBe(1)
  const admin = callerOf(await room.account('boss@example.com', 'admin'))
  expect(await room.sessions.list(admin, account.id, page)).toMatchObject([{ id: present(first).id }])
  expect(await room.sessions.revokeAll(admin, account.id)).toBe(1)
})
