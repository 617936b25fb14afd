import { mkdir, rm } from 'node:fs/promises'
import { present } from '@cloudphone/testing/present'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { callerOf, openUsersRoom, type UsersRoom } from '../testing/users-room.ts'

let room: UsersRoom
beforeAll(async () => {
  room = await openUsersRoom()
})
afterAll(() => room[Symbol.asyncDispose]())

const fresh = 'a staple of other horses'
const hour = 3_600_000
const tokenOfLast = async (email: string) =>
  (await room.post()).findLast(({ to }) => to === email)?.token ?? ''

test('a forgotten password is set anew by the mail, once, and every session ends', async () => {
  const email = 'forgot@example.com'
  await room.account(email)
  const { refreshToken } = await room.sessions.login({ email, password: room.password })
  await room.credentials.forgot(email, undefined)
  const token = await tokenOfLast(email)
  const answers = await Promise.allSettled([
    room.credentials.reset(token, fresh),
    room.credentials.reset(token, fresh),
  ])
  expect(answers.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
  await expect(room.credentials.reset(token, fresh)).rejects.toMatchObject({
    status: 410,
    code: 'invalid_mail_token',
  })
  await expect(room.sessions.refresh(refreshToken)).rejects.toMatchObject({ status: 401 })
  await expect(room.sessions.login({ email, password: room.password })).rejects.toMatchObject({
    code: 'invalid_credentials',
  })
  await room.sessions.login({ email, password: fresh })
})

test('a request for an unknown address answers the same, leaves the same row and becomes no mail', async () => {
  const before = (await room.post()).length
  await room.credentials.forgot('nobody@example.com', undefined)
  const rows = await sql<{ kind: string }>`select kind from mails where email = 'nobody@example.com'`.execute(
    room.database.kysely,
  )
  expect(rows.rows).toEqual([{ kind: 'password_reset' }])
  expect(await room.post()).toHaveLength(before)
  expect((await sql`select from mails`.execute(room.database.kysely)).rows).toEqual([])
})

test('a token is useless when it is over, or was made for something else, and is nowhere in the database', async () => {
  const email = 'late@example.com'
  await room.account(email)
  await room.credentials.forgot(email, undefined)
  const token = await tokenOfLast(email)
  await expect(room.credentials.verifyEmail(token)).rejects.toMatchObject({ code: 'invalid_mail_token' })
  const kept = await sql`select row_to_json(one_time_tokens)::text as row from one_time_tokens`.execute(
    room.database.kysely,
  )
  expect(JSON.stringify(kept.rows)).not.toContain(token)
  await room.clock.advance(hour + 1_000)
  await expect(room.credentials.reset(token, fresh)).rejects.toMatchObject({ code: 'invalid_mail_token' })
})

test('the reset refuses a password that is easy to guess, and the token is good still', async () => {
  const email = 'weak@example.com'
  await room.account(email)
  await room.credentials.forgot(email, undefined)
  const token = await tokenOfLast(email)
  await expect(room.credentials.reset(token, 'password1234')).rejects.toMatchObject({ code: 'weak_password' })
  await room.credentials.reset(token, fresh)
})

test('a mail that was not taken over is sent later, with the same token', async () => {
  const email = 'broken@example.com'
  await room.account(email)
  await room.credentials.forgot(email, undefined)
  await rm(room.mailFolder, { recursive: true })
  await room.mails.deliver()
  await mkdir(room.mailFolder)
  await room.mails.deliver()
  expect(await room.post()).toEqual([])
  await room.clock.advance(31_000)
  const token = await tokenOfLast(email)
  await room.credentials.reset(token, fresh)
})

test('an e-mail is proved by its mail', async () => {
  const account = await room.account('prove@example.com')
  await room.credentials.requestVerification(callerOf(account))
  await room.credentials.verifyEmail(await tokenOfLast(account.email))
  const row = await sql<{ proved: boolean }>`
    select email_verified_at is not null as proved from users where id = ${account.id}`.execute(
    room.database.kysely,
  )
  expect(row.rows).toEqual([{ proved: true }])
})

test('a password is changed by who knows the old one; the other sessions end, this one goes on', async () => {
  const email = 'change@example.com'
  const account = await room.account(email)
  const here = await room.sessions.login({ email, password: room.password })
  const elsewhere = await room.sessions.login({ email, password: room.password })
  const page = { beforeId: undefined, limit: 10 }
  const sessions = await room.sessions.list(callerOf(account), account.id, page)
  // Newest first: the first sign-in is the second row.
  const caller = { ...callerOf(account), sessionId: present(sessions[1]).id }
  await expect(
    room.credentials.changePassword(caller, { oldPassword: 'not it at all', newPassword: fresh }),
  ).rejects.toMatchObject({ status: 403, code: 'wrong_password' })
  await room.credentials.changePassword(caller, { oldPassword: room.password, newPassword: fresh })
  await room.sessions.refresh(here.refreshToken)
  await expect(room.sessions.refresh(elsewhere.refreshToken)).rejects.toMatchObject({ status: 401 })
})

test('who signs in while the password is set anew holds no session of the old one afterwards', async () => {
  const email = 'race@example.com'
  const account = await room.account(email)
  for (let round = 0; round < 5; round += 1) {
    const [oldPassword, newPassword] = round % 2 === 0 ? [room.password, fresh] : [fresh, room.password]
    const signIns = [1, 2, 3].map(() => room.sessions.login({ email, password: oldPassword }))
    const change = room.credentials.changePassword(callerOf(account), { oldPassword, newPassword })
    const grants = await Promise.allSettled(signIns)
    await change
    for (const grant of grants) {
      if (grant.status === 'rejected') continue
      await expect(room.sessions.refresh(grant.value.refreshToken)).rejects.toMatchObject({ status: 401 })
    }
  }
})
