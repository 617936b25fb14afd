/* Terminology:
 * - subject: what wrong attempts are counted for: an account (by its e-mail, whether there is one or not) or an address
 */
import { createHash } from 'node:crypto'
import { isIPv6 } from 'node:net'
import type { Database } from '@cloudphone/db/database'
import { ProblemError } from '@cloudphone/runtime/problem'
import type { UsersSchema } from '../db/schema.ts'
import {
  countFailure,
  type FailureLimit,
  forgetFailures,
  lockedSeconds,
  purgeFailures,
} from '../db/sign-in-failure-repo.ts'

/** Whose attempt it is. `kind`: attempts at one thing are not counted for another. */
export interface Attempt {
  readonly kind: 'account' | 'forgot' | 'code'
  /** The e-mail, or the id of who is signed in. */
  readonly who: string
  /** Undefined where it is not known, as in a call from within. */
  readonly address: string | undefined
}

export interface ThrottleLimits {
  readonly account: FailureLimit
  readonly address: FailureLimit
}

/** The limits for so many free attempts: 30 s after the last of an account, doubled each time up to 15 minutes. */
export function limitsOf({ account, address }: { account: number; address: number }): ThrottleLimits {
  const pauses = { firstPauseSeconds: 30, longestPauseSeconds: 900 }
  return { account: { free: account, ...pauses }, address: { free: address, ...pauses } }
}

/**
 * Slows down those who guess. Counted in the database, thus over all instances and restarts, and the same for accounts
 * that do not exist. A right password does not help while its account or its address is locked: of however many attempts
 * at the same moment, only as many get an answer as the limit leaves.
 */
export class SignInThrottle {
  readonly #database: Database<UsersSchema>
  readonly #limits: ThrottleLimits

  constructor(deps: { database: Database<UsersSchema>; limits: ThrottleLimits }) {
    this.#database = deps.database
    this.#limits = deps.limits
  }

  /** @throws ProblemError `too_many_attempts` while one of the attempt's subjects is locked. */
  async check(attempt: Attempt): Promise<void> {
    const seconds = await lockedSeconds(this.#database.kysely, subjectsOf(attempt))
    if (seconds !== undefined) throw tooMany(seconds)
  }

  /** Counts a wrong attempt. @throws ProblemError `too_many_attempts` when it came while a subject was locked. */
  async failed(attempt: Attempt): Promise<void> {
    const [account, address] = subjectsOf(attempt)
    const counted = await this.#database.transaction(async (tx) => {
      const byAccount = account === undefined || (await countFailure(tx, account, this.#limits.account))
      const byAddress = address === undefined || (await countFailure(tx, address, this.#limits.address))
      return byAccount && byAddress
    })
    if (!counted) await this.check(attempt)
  }

  /** A good attempt: those before it are forgotten, of the account. Its address may be guessing at others. */
  async succeeded(attempt: Attempt): Promise<void> {
    const [account] = subjectsOf(attempt)
    if (account !== undefined) await forgetFailures(this.#database.kysely, account)
  }

  /** Forgets what counts no more. */
  async purge(): Promise<void> {
    await purgeFailures(this.#database.kysely)
  }
}

function subjectsOf({ kind, who, address }: Attempt): string[] {
  const account = `${kind}:${createHash('sha256').update(who.toLowerCase()).digest('base64url')}`
  return address === undefined ? [account] : [account, `address:${networkOf(address)}`]
}

/** What one person has: an IPv4 address, or an IPv6 network of 64 bits. */
export function networkOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1]
  if (mapped !== undefined) return mapped
  if (!isIPv6(address)) return address
  const [head = '', tail] = (address.split('%')[0] ?? '').toLowerCase().split('::')
  const groups = head === '' ? [] : head.split(':')
  if (tail !== undefined) {
    const after = tail === '' ? [] : tail.split(':')
    while (groups.length + after.length < 8) groups.push('0')
    groups.push(...after)
  }
  const network = groups.slice(0, 4).map((group) => Number.parseInt(group, 16).toString(16))
  return `${network.join(':')}::/64`
}

function tooMany(seconds: number): ProblemError {
  const retryAfterSeconds = Math.max(1, seconds)
  return new ProblemError({
    status: 429,
    code: 'too_many_attempts',
    detail: `Too many wrong attempts; try again in ${retryAfterSeconds} s.`,
    members: { retryAfterSeconds },
    retryAfterSeconds,
  })
}
