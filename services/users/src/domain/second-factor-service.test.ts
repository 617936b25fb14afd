import { present } from '@cloudphone/testing/present'
import { sql } from 'kysely'
import { Secret, TOTP } from 'otpauth'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { callerOf, openUsersRoom, type UsersRoom } from '../testing/users-room.ts'

let room: UsersRoom
beforeAll(async () => {
  room = await openUsersRoom()
})
afterAll(() => room[Symbol.asyncDispose]())

/** The authenticator on the person's phone, by the clock of the test. */
function authenticator(secret: string) {
  const totp = new TOTP({ secret: Secret.fromBase32(secret) })
  return (laterMs = 0) => totp.generate({ timestamp: room.clock.now().getTime() + laterMs })
}

async function enrolled(email: string) {
  const account = await room.account(email)
  const caller = callerOf(account)
  const { secret, otpauthUrl } = await room.factors.enrol(caller, room.password)
  const code = authenticator(secret)
  const recoveryCodes = await room.factors.confirm(caller, code())
  await room.clock.advance(30_000)
  return { account, caller, secret, otpauthUrl, code, recoveryCodes }
}

const signIn = (email: string, code?: string) => room.sessions.login({ email, password: room.password, code })
const wrong = { status: 401, code: 'wrong_code' }

test('codes are those of RFC 6238', () => {
  // Appendix B of the RFC: the secret in ASCII, the time, the last six of the eight digits.
  const totp = new TOTP({ secret: Secret.fromLatin1('12345678901234567890') })
  expect(totp.generate({ timestamp: 59_000 })).toBe('287082')
  expect(totp.generate({ timestamp: 1_111_111_109_000 })).toBe('081804')
})

test('a second factor counts for nothing until its first code', async () => {
  const account = await room.account('draft@example.com')
  const caller = callerOf(account)
  await expect(room.factors.enrol(caller, 'not the password')).rejects.toMatchObject({
    code: 'wrong_password',
  })
  const first = await room.factors.enrol(caller, room.password)
  const second = await room.factors.enrol(caller, room.password)
  await signIn(account.email)
  await expect(room.factors.confirm(caller, authenticator(first.secret)())).rejects.toMatchObject(wrong)
  expect(await room.factors.state(caller)).toEqual({ state: 'enrolled', recoveryCodesLeft: 0 })
  await room.factors.confirm(caller, authenticator(second.secret)())
  expect(await room.factors.state(caller)).toEqual({ state: 'on', recoveryCodesLeft: 10 })
  await expect(room.factors.enrol(caller, room.password)).rejects.toMatchObject({ code: 'second_factor_on' })
})

test('with it the password alone is not enough, and each code is good once', async () => {
  const { account, code, otpauthUrl } = await enrolled('on@example.com')
  expect(otpauthUrl).toMatch(/^otpauth:\/\/totp\/Cloudphone:on%40example\.com\?/)
  await expect(signIn(account.email)).rejects.toMatchObject({ status: 401, code: 'second_factor_required' })
  await expect(signIn(account.email, code(600_000))).rejects.toMatchObject(wrong)
  const now = code()
  const answers = await Promise.allSettled([1, 2, 3].map(() => signIn(account.email, now)))
  expect(answers.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
  // One that is older than the last is none, though its time is not over.
  await expect(signIn(account.email, code(-30_000))).rejects.toMatchObject(wrong)
  await signIn(account.email, code(30_000))
})

test('the code that confirmed it is used up', async () => {
  const account = await room.account('confirm@example.com')
  const { secret } = await room.factors.enrol(callerOf(account), room.password)
  const code = authenticator(secret)()
  await room.factors.confirm(callerOf(account), code)
  await expect(signIn(account.email, code)).rejects.toMatchObject(wrong)
})

test('guesses at the code lock the account as guesses at the password do', async () => {
  const { account, code } = await enrolled('guess@example.com')
  for (let guess = 0; guess < 10; guess += 1) {
    await expect(signIn(account.email, code(3_600_000 * (guess + 1)))).rejects.toMatchObject(wrong)
  }
  await expect(signIn(account.email, code())).rejects.toMatchObject({ status: 429 })
})

test('a recovery code is good once, as people type it, and not after new ones were made', async () => {
  const { account, caller, code, recoveryCodes } = await enrolled('lost@example.com')
  const [first, second] = recoveryCodes
  await signIn(account.email, first?.toUpperCase().replace('-', ' '))
  await expect(signIn(account.email, first)).rejects.toMatchObject(wrong)
  expect(await room.factors.state(caller)).toEqual({ state: 'on', recoveryCodesLeft: 9 })
  const fresh = await room.factors.renewRecoveryCodes(caller, code())
  await expect(signIn(account.email, second)).rejects.toMatchObject(wrong)
  await signIn(account.email, fresh[0])
})

test('it is switched off by a code, or by who manages users', async () => {
  const own = await enrolled('off@example.com')
  await expect(room.factors.disable(own.caller, '000000')).rejects.toMatchObject(wrong)
  await room.factors.disable(own.caller, own.code())
  await signIn(own.account.email)
  await expect(room.factors.disable(own.caller, own.code())).rejects.toMatchObject({
    code: 'second_factor_off',
  })
  const lost = await enrolled('away@example.com')
  const admin = await room.account('factor-admin@example.com', 'admin')
  const { refreshToken } = await signIn(lost.account.email, lost.code())
  await room.factors.remove(callerOf(admin), lost.account.id)
  await expect(room.sessions.refresh(refreshToken)).rejects.toMatchObject({ status: 401 })
  await signIn(lost.account.email)
})

test('who reads the tables can make no code, nor move a secret to another account', async () => {
  const mine = await enrolled('sealed@example.com')
  const yours = await enrolled('other@example.com')
  const rows = await sql<{ secret: Buffer }>`
    select secret from second_factors where user_id = ${mine.account.id}`.execute(room.database.kysely)
  expect(present(rows.rows[0]).secret.includes(Buffer.from(Secret.fromBase32(mine.secret).buffer))).toBe(
    false,
  )
  await sql`
    update second_factors set secret = ${present(rows.rows[0]).secret}
    where user_id = ${yours.account.id}`.execute(room.database.kysely)
  await expect(signIn(yours.account.email, mine.code())).rejects.toThrow()
})
