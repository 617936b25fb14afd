/* Terminology:
 * - revocation: the early end of a session, of an API key, of all tokens of a user up to an issue, or of a signing key
 * - feed: the revocations in the order of their transactions, read by every service within a round trip
 */
import type { Revocation } from '@cloudphone/contracts/api/users-api'
import type { UserId } from '@cloudphone/contracts/id'
import { afterCommit, type Database, type Tx } from '@cloudphone/db/database'
import type { Clock } from '@cloudphone/observe/clock'
import {
  endSessions,
  type FeedPlace,
  insertRevocation,
  purgeRevocations,
  raiseTokenEpoch,
  readFeed,
} from '../db/revocation-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import { problems } from '../errors.ts'

type UsersTx = Tx<UsersSchema>

/** How often those who wait look without having been woken, in case a wake-up was lost. */
const lookEveryMs = 1_000

/** Ends sessions and tokens before their time, everywhere: the rows in the caller's transaction, the news after it. */
export class Revocations {
  readonly #database: Database<UsersSchema>
  readonly #clock: Clock
  readonly #keepSeconds: number
  readonly #announce: () => void
  #woken = Promise.withResolvers<void>()

  constructor(deps: {
    database: Database<UsersSchema>
    clock: Clock
    /** At least as long as the longest-lived access token. */
    keepSeconds: number
    /** Wakes those who wait for the feed, in all instances. */
    announce: () => void
  }) {
    this.#database = deps.database
    this.#clock = deps.clock
    this.#keepSeconds = deps.keepSeconds
    this.#announce = deps.announce
  }

  /** The tokens of a session or an API key are refused from now on. Ending its row is the caller's part. */
  async revokeSession(tx: UsersTx, id: string): Promise<void> {
    await this.#add(tx, { kind: 'session', id })
  }

  /**
   * Every token of the user is refused from now on, and every session ended. API keys get new tokens while the account
   * is active: they say what it may do now.
   */
  async revokeUser(tx: UsersTx, userId: UserId): Promise<void> {
    await endSessions(tx, { userId, reason: 'user' })
    await this.renewTokens(tx, userId)
  }

  /** Every token of the user must be renewed: it says something that is not true any more, such as a role. */
  async renewTokens(tx: UsersTx, userId: UserId): Promise<void> {
    const epoch = await raiseTokenEpoch(tx, userId)
    if (epoch === undefined) throw problems.user_not_found({ userId })
    await this.#add(tx, { kind: 'user', id: userId, epoch })
  }

  /** Everybody fetches the signing keys anew. */
  async keysChanged(tx: UsersTx): Promise<void> {
    await this.#add(tx, { kind: 'keys' })
  }

  /**
   * What was revoked since a cursor of an earlier answer; without one, all that matters still. With nothing to tell it
   * waits up to `waitMs`, or until the signal fires.
   */
  async since(
    cursor: string | undefined,
    { waitMs, signal }: { waitMs: number; signal: AbortSignal },
  ): Promise<{ cursor: string; revocations: Revocation[] }> {
    const place = placeOf(cursor)
    const untilMs = this.#clock.monotonicMs() + waitMs
    for (;;) {
      const woken = this.#woken.promise
      const { next, fresh } = await readFeed(this.#database.kysely, place)
      const leftMs = untilMs - this.#clock.monotonicMs()
      if (fresh.length > 0 || leftMs <= 0 || signal.aborted) {
        return { cursor: [next.fromTx, ...next.seen].join('.'), revocations: fresh }
      }
      const patience = new AbortController()
      const enough = this.#clock
        .sleep(Math.min(leftMs, lookEveryMs), AbortSignal.any([patience.signal, signal]))
        .catch(() => undefined)
      await Promise.race([woken, enough])
      patience.abort(new Error('woken'))
    }
  }

  /** Something is on the feed, or may be. */
  wake(): void {
    this.#woken.resolve()
    this.#woken = Promise.withResolvers()
  }

  /** Forgets what no token can be about any more. */
  async purge(): Promise<void> {
    await purgeRevocations(this.#database.kysely)
  }

  async #add(tx: UsersTx, revocation: Revocation): Promise<void> {
    await insertRevocation(tx, revocation, this.#keepSeconds)
    afterCommit(tx, this.#announce)
  }
}

/** A cursor that was not given out by us starts from the beginning: too much is told, never too little. */
function placeOf(cursor: string | undefined): FeedPlace | undefined {
  if (cursor === undefined || !/^\d{1,19}(\.\d{1,19})*$/.test(cursor)) return undefined
  const [fromTx = '0', ...seen] = cursor.split('.')
  return { fromTx, seen }
}
