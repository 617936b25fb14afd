import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { callerOf, openUsersRoom, type UsersRoom } from '../testing/users-room.ts'

let room: UsersRoom
beforeAll(async () => {
  room = await openUsersRoom()
})
afterAll(() => room[Symbol.asyncDispose]())

const lastMail = async (at: UsersRoom, email: string) => (await at.post()).findLast(({ to }) => to === email)

test('who is invited makes the account it was invited to, once', async () => {
  const admin = await room.account('admin@example.com', 'admin', 'acme')
  await room.invitations.invite(callerOf(admin), { email: 'guest@example.com', role: 'operator' })
  const mail = await lastMail(room, 'guest@example.com')
  expect(mail?.text).toContain('邀请')
  const wanted = { token: mail?.token ?? '', name: 'Guest', password: room.password }
  const answers = await Promise.allSettled([room.invitations.accept(wanted), room.invitations.accept(wanted)])
  expect(answers.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
  const { account } = await room.sessions.login({ email: 'guest@example.com', password: room.password })
  expect(account).toMatchObject({ role: 'operator', tenantId: admin.tenantId, name: 'Guest' })
  expect((await room.events()).filter((event) => event.aggregate_id === account.id)).toMatchObject([
    { event_type: 'user.created' },
  ])
  await expect(
    room.invitations.invite(callerOf(admin), { email: 'guest@example.com', role: 'member' }),
  ).rejects.toMatchObject({ status: 409, code: 'email_taken' })
})

test('an invitation that was taken back, or is a week old, makes no account; another tenant cannot take it back', async () => {
  const admin = await room.account('admin2@example.com', 'admin', 'acme')
  const other = await room.account('admin3@example.com', 'admin', 'globex')
  const invite = async (email: string) => {
    const { id } = await room.invitations.invite(callerOf(admin), { email, role: 'member' })
    const token = (await lastMail(room, email))?.token ?? ''
    return { id, wanted: { token, name: 'Guest', password: room.password } }
  }
  const [first, second] = [await invite('one@example.com'), await invite('two@example.com')]
  await expect(room.invitations.revoke(callerOf(other), first.id)).rejects.toMatchObject({ status: 404 })
  await room.invitations.revoke(callerOf(admin), first.id)
  const page = { beforeId: undefined, limit: 10 }
  expect((await room.invitations.list(callerOf(admin), page)).map(({ id }) => id)).toEqual([second.id])
  expect(await room.invitations.list(callerOf(other), page)).toEqual([])
  const over = { status: 410, code: 'invalid_mail_token' }
  await expect(room.invitations.accept(first.wanted)).rejects.toMatchObject(over)
  await room.clock.advance(8 * 86_400_000)
  await expect(room.invitations.accept(second.wanted)).rejects.toMatchObject(over)
})

test('an invitation taken back before its mail was sent is not sent', async () => {
  const admin = await room.account('admin4@example.com', 'admin', 'acme')
  const { id } = await room.invitations.invite(callerOf(admin), {
    email: 'never@example.com',
    role: 'member',
  })
  await room.invitations.revoke(callerOf(admin), id)
  expect(await lastMail(room, 'never@example.com')).toBeUndefined()
})

test('nobody registers where it is not open, and nobody is invited where it is closed', async () => {
  await expect(room.invitations.register('me@example.com', undefined)).rejects.toMatchObject({
    status: 403,
    code: 'registration_closed',
  })
  await using closed = await openUsersRoom({ registration: 'closed' })
  const admin = await closed.account('admin@example.com', 'admin')
  await expect(
    closed.invitations.invite(callerOf(admin), { email: 'me@example.com', role: 'member' }),
  ).rejects.toMatchObject({ code: 'registration_closed' })
})

test('open registration tells only the mailbox whether there is an account', async () => {
  await using open = await openUsersRoom({ registration: 'open', registrationTenant: 'acme' })
  const known = await open.account('known@example.com', 'member', 'acme')
  await open.invitations.register('known@example.com', undefined)
  await open.invitations.register('fresh@example.com', undefined)
  const rows = await sql`select kind from mails`.execute(open.database.kysely)
  expect(rows.rows).toHaveLength(2)
  expect((await lastMail(open, 'known@example.com'))?.text).toContain('already')
  const mail = await lastMail(open, 'fresh@example.com')
  const account = await open.invitations.accept({
    token: mail?.token ?? '',
    name: 'Fresh',
    password: open.password,
  })
  expect(account).toMatchObject({ role: 'member', tenantId: known.tenantId })
})
