import { present } from '@cloudphone/testing/present'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { callerOf, openUsersRoom, type UsersRoom } from '../testing/users-room.ts'

let room: UsersRoom
beforeAll(async () => {
  room = await openUsersRoom()
})
afterAll(() => room[Symbol.asyncDispose]())

const lastAdmin = { status: 409, code: 'last_admin' }

/** Two administrators and a member, in a tenant of their own. */
async function tenant(slug: string) {
  const account = (name: string, role: 'admin' | 'member') =>
    room.account(`${name}@${slug}.example`, role, slug)
  return {
    first: await account('first', 'admin'),
    second: await account('second', 'admin'),
    member: await account('member', 'member'),
  }
}

const eventsOf = async (id: string) =>
  (
    await sql<{ type: string; version: number }>`
      select event_type as type, aggregate_version as version from event_outbox
      where aggregate_id = ${id} order by id`.execute(room.database.kysely)
  ).rows.map(({ type, version }) => [type, Number(version)])

test('a suspended account is out until it is activated: sessions, keys, sign-in, quota', async () => {
  const { first, member } = await tenant('suspended')
  const grant = await room.sessions.login({ email: member.email, password: room.password })
  const { key } = await room.apiKeys.create(callerOf(member), { name: 'robot' })
  const caller = callerOf(first)
  expect(await room.lifecycle.suspend(caller, member.id, 'does not pay')).toMatchObject({
    status: 'suspended',
  })
  await room.lifecycle.suspend(caller, member.id, 'twice is no error')
  await expect(room.sessions.refresh(grant.refreshToken)).rejects.toMatchObject({ status: 401 })
  await expect(room.apiKeys.exchange(key)).rejects.toMatchObject({ code: 'invalid_api_key' })
  await expect(room.sessions.login({ email: member.email, password: room.password })).rejects.toMatchObject({
    status: 403,
    code: 'user_suspended',
  })
  const amounts = { devices: 1, cpu: 1, memory: 1, storage: 1, sessions: 0 }
  const asked = { userId: member.id, ...amounts, ttlSeconds: 60 }
  await expect(room.quotas.reserve({ ...asked, reservationId: crypto.randomUUID() })).rejects.toMatchObject({
    code: 'user_suspended',
  })
  const feed = await room.revocations.since(undefined, { waitMs: 0, signal: new AbortController().signal })
  expect(feed.revocations).toContainEqual({ kind: 'user', id: member.id, epoch: 1 })
  await room.lifecycle.activate(caller, member.id)
  await room.lifecycle.activate(caller, member.id)
  await room.sessions.login({ email: member.email, password: room.password })
  await room.apiKeys.exchange(key)
  expect(await eventsOf(member.id)).toEqual([
    ['user.created', 1],
    ['user.suspended', 2],
    ['user.activated', 3],
  ])
})

test('a deleted account leaves nothing of its person, and its e-mail is free', async () => {
  const { first, member } = await tenant('deleted')
  const { key } = await room.apiKeys.create(callerOf(member), { name: 'robot' })
  await room.lifecycle.delete(callerOf(first), member.id)
  await expect(room.lifecycle.delete(callerOf(first), member.id)).rejects.toMatchObject({
    code: 'user_not_found',
  })
  await expect(room.apiKeys.exchange(key)).rejects.toMatchObject({ code: 'invalid_api_key' })
  await expect(room.sessions.login({ email: member.email, password: room.password })).rejects.toMatchObject({
    code: 'invalid_credentials',
  })
  await expect(room.accounts.get(callerOf(first), member.id)).rejects.toMatchObject({ status: 404 })
  const listed = await room.accounts.list(callerOf(first), { beforeId: undefined, limit: 10 })
  expect(listed.map(({ id }) => id)).not.toContain(member.id)
  const rows = await sql`select row_to_json(users)::text as row from users where id = ${member.id}`.execute(
    room.database.kysely,
  )
  expect(JSON.stringify(rows.rows)).not.toContain(member.email)
  expect(await eventsOf(member.id)).toEqual([
    ['user.created', 1],
    ['user.deleted', 2],
  ])
  await room.account(member.email, 'member', 'deleted')
})

test('the last administrator stays, whatever two administrators do to each other at once', async () => {
  for (let round = 0; round < 6; round += 1) {
    const { first, second } = await tenant(`last-${round}`)
    const against = (by: typeof first, whom: typeof first) =>
      present(
        [
          () => room.lifecycle.suspend(callerOf(by), whom.id, 'a quarrel'),
          () => room.lifecycle.update(callerOf(by), whom.id, { role: 'viewer' }),
          () => room.lifecycle.delete(callerOf(by), whom.id),
        ][round % 3],
      )
    const answers = await Promise.allSettled([against(first, second)(), against(second, first)()])
    expect(answers.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
    expect(answers.find(({ status }) => status === 'rejected')).toMatchObject({ reason: lastAdmin })
  }
})

test('the last administrator cannot leave by itself either', async () => {
  const only = await room.account('only@example.com', 'admin', 'only')
  const caller = callerOf(only)
  await expect(room.lifecycle.suspend(caller, only.id, 'tired')).rejects.toMatchObject(lastAdmin)
  await expect(room.lifecycle.delete(caller, only.id)).rejects.toMatchObject(lastAdmin)
  await expect(room.lifecycle.update(caller, only.id, { role: 'member' })).rejects.toMatchObject(lastAdmin)
  expect(await room.lifecycle.update(caller, only.id, { name: 'Still here' })).toMatchObject({
    name: 'Still here',
    role: 'admin',
  })
})

test('a member changes its own name, but neither its role nor anybody else', async () => {
  const { first, member } = await tenant('members')
  const caller = callerOf(member)
  expect(await room.lifecycle.update(caller, member.id, { name: 'Mei' })).toMatchObject({ name: 'Mei' })
  await expect(room.lifecycle.update(caller, member.id, { role: 'admin' })).rejects.toMatchObject({
    status: 403,
  })
  await expect(room.lifecycle.update(caller, first.id, { name: 'Eve' })).rejects.toMatchObject({
    status: 403,
  })
})

test('a changed role ends the tokens that say the old one; another tenant’s administrator reaches nobody', async () => {
  const { first, member } = await tenant('roles')
  const { first: stranger } = await tenant('strangers')
  const changed = await room.lifecycle.update(callerOf(first), member.id, { role: 'operator' })
  expect(changed).toMatchObject({ role: 'operator', tokenEpoch: member.tokenEpoch + 1 })
  const caller = callerOf(stranger)
  const unknown = { status: 404, code: 'user_not_found' }
  await expect(room.lifecycle.update(caller, member.id, { role: 'viewer' })).rejects.toMatchObject(unknown)
  await expect(room.lifecycle.suspend(caller, member.id, 'x')).rejects.toMatchObject(unknown)
  await expect(room.lifecycle.delete(caller, member.id)).rejects.toMatchObject(unknown)
  await expect(room.lifecycle.unlock(caller, member.id)).rejects.toMatchObject(unknown)
  await expect(room.factors.remove(caller, member.id)).rejects.toMatchObject(unknown)
})
