import { afterAll, beforeAll, expect, test } from 'vitest'
import { callerOf, openUsersRoom, type UsersRoom } from '../testing/users-room.ts'
import { limitsOf, networkOf, SignInThrottle } from './sign-in-throttle.ts'

const limits = limitsOf({ account: 3, address: 6 })
let room: UsersRoom
beforeAll(async () => {
  room = await openUsersRoom({ limits })
})
afterAll(() => room[Symbol.asyncDispose]())

const wrong = 'not the password'
const attempt = (email: string, password: string, address?: string) =>
  room.sessions.login({ email, password, address }).then(
    () => 'in',
    (error: { code: string; retryAfterSeconds?: number }) =>
      error.retryAfterSeconds === undefined ? error.code : `${error.code} ${error.retryAfterSeconds}`,
  )

test.each(['known@example.com', 'unknown@example.com'])(
  'guesses at %s get slower, twice as slow each time, up to 15 minutes',
  async (email) => {
    if (email.startsWith('known')) await room.account(email)
    for (let guess = 0; guess < 3; guess += 1) expect(await attempt(email, wrong)).toBe('invalid_credentials')
    for (const pauseSeconds of [30, 60, 120, 240, 480, 900, 900]) {
      const [, seconds] = (await attempt(email, wrong)).split(' ')
      expect(Math.abs(Number(seconds) - pauseSeconds)).toBeLessThanOrEqual(10)
      await room.clock.advance(pauseSeconds * 1_000)
      expect(await attempt(email, wrong)).toBe('invalid_credentials')
    }
  },
)

test('the right password does not help while the account is locked, at any instance, and an administrator unlocks it', async () => {
  const account = await room.account('locked@example.com')
  const admin = await room.account('unlocker@example.com', 'admin')
  for (let guess = 0; guess < 3; guess += 1) await attempt(account.email, wrong)
  expect(await attempt(account.email, room.password)).toMatch(/^too_many_attempts/)
  // Another instance, or this one after a restart: the count is the database's.
  const elsewhere = new SignInThrottle({ database: room.database, limits })
  await expect(
    elsewhere.check({ kind: 'account', who: 'LOCKED@example.com', address: undefined }),
  ).rejects.toMatchObject({ status: 429, code: 'too_many_attempts' })
  await room.lifecycle.unlock(callerOf(admin), account.id)
  expect(await attempt(account.email, room.password)).toBe('in')
})

test('a good sign-in forgets the guesses before it', async () => {
  const { email } = await room.account('good@example.com')
  for (let round = 0; round < 3; round += 1) {
    expect(await attempt(email, wrong)).toBe('invalid_credentials')
    expect(await attempt(email, wrong)).toBe('invalid_credentials')
    expect(await attempt(email, room.password)).toBe('in')
  }
})

test('of many guesses at the same moment no more are answered than the limit leaves', async () => {
  const { email } = await room.account('burst@example.com')
  const guesses = Array.from({ length: 12 }, (_none, index) => attempt(email, `${wrong} ${index}`))
  const answers = await Promise.all(guesses)
  expect(answers.filter((answer) => answer === 'invalid_credentials')).toHaveLength(3)
  expect(await attempt(email, room.password)).toMatch(/^too_many_attempts/)
})

test('an address that tries many accounts is slowed down, its neighbour is not', async () => {
  const { email } = await room.account('neighbour@example.com')
  for (let guess = 0; guess < 6; guess += 1) {
    expect(await attempt(`spray-${guess}@example.com`, wrong, '203.0.113.7')).toBe('invalid_credentials')
  }
  expect(await attempt(email, room.password, '203.0.113.7')).toMatch(/^too_many_attempts/)
  expect(await attempt(email, room.password, '203.0.113.8')).toBe('in')
  // Its own account does not buy it more guesses at others.
  await room.clock.advance(31_000)
  expect(await attempt(email, room.password, '203.0.113.7')).toBe('in')
  expect(await attempt('spray-9@example.com', wrong, '203.0.113.7')).toBe('invalid_credentials')
  expect(await attempt(email, room.password, '203.0.113.7')).toMatch(/^too_many_attempts/)
})

test.each([
  ['203.0.113.7', '203.0.113.7'],
  ['::ffff:203.0.113.7', '203.0.113.7'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:DB8:1:2::9', '2001:db8:1:2::/64'],
  ['2001:db8::9', '2001:db8:0:0::/64'],
  ['1::2:3:4:5:6:7', '1:0:2:3::/64'],
  ['::1', '0:0:0:0::/64'],
  ['fe80::1%eth0', 'fe80:0:0:0::/64'],
])('%s counts as %s', (address, network) => {
  expect(networkOf(address)).toBe(network)
})
