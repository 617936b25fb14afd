import type { Revocation } from '@cloudphone/contracts/api/users-api'
import type { UserId } from '@cloudphone/contracts/id'
import { type Kysely, sql } from 'kysely'
import type { UsersSchema } from './schema.ts'

/** Puts a revocation on the feed, until `keepSeconds` from now. */
export async function insertRevocation(
  tx: Kysely<UsersSchema>,
  revocation: Revocation,
  keepSeconds: number,
): Promise<void> {
  await sql`
    insert into revocations (kind, subject, epoch, forget_at)
    values (${revocation.kind}, ${'id' in revocation ? revocation.id : null},
            ${'epoch' in revocation ? revocation.epoch : null},
            app_now() + make_interval(secs => ${keepSeconds}))`.execute(tx)
}

/** Ends all sessions of a user but `exceptId`; returns their ids. */
export async function endSessions(
  tx: Kysely<UsersSchema>,
  { userId, reason, exceptId }: { userId: UserId; reason: 'revoked' | 'user'; exceptId?: string | undefined },
): Promise<string[]> {
  const ended = await sql<{ id: string }>`
    update sessions set revoked_at = app_now(), revoke_reason = ${reason}
    where user_id = ${userId} and revoked_at is null and id::text is distinct from ${exceptId ?? null}
    returning id`.execute(tx)
  return ended.rows.map(({ id }) => id)
}

/** Begins a new issue of a user's tokens; undefined for an unknown user. */
export async function raiseTokenEpoch(tx: Kysely<UsersSchema>, userId: UserId): Promise<number | undefined> {
  const raised = await sql<{ epoch: number }>`
    update users set token_epoch = token_epoch + 1, updated_at = now() -- audit
    where id = ${userId} returning token_epoch as epoch`.execute(tx)
  return raised.rows[0]?.epoch
}

/** A place in the feed: every transaction before `fromTx` has been read, and of the later ones these rows. */
export interface FeedPlace {
  readonly fromTx: string
  readonly seen: readonly string[]
}

interface FeedRow {
  id: string
  kind: Revocation['kind']
  subject: string | null
  epoch: number | null
  /** Of a transaction that is not behind the next place: it will be met again. */
  ahead: boolean
}

/**
 * What is on the feed since a place, all of it without one, and the next place. Reads in order of transactions, not of
 * row ids: one that took its id early and commits late is met all the same. All in one statement, thus of one snapshot.
 */
export async function readFeed(
  db: Kysely<UsersSchema>,
  place: FeedPlace | undefined,
): Promise<{ next: FeedPlace; fresh: Revocation[] }> {
  const { rows } = await sql<{ horizon: string; rows: FeedRow[] }>`
    select horizon::text, coalesce((
      select json_agg(json_build_object('id', id::text, 'kind', kind, 'subject', subject, 'epoch', epoch,
                                        'ahead', tx >= horizon) order by id)
      from revocations where tx >= ${place?.fromTx ?? '0'}::xid8
    ), '[]'::json) as rows
    from (select pg_snapshot_xmin(pg_current_snapshot()) as horizon) as snapshot`.execute(db)
  const [found] = rows
  if (found === undefined) throw new Error('the feed answered nothing')
  const seen = new Set(place?.seen)
  return {
    next: { fromTx: found.horizon, seen: found.rows.filter(({ ahead }) => ahead).map(({ id }) => id) },
    fresh: found.rows.filter(({ id }) => !seen.has(id)).map(revocationOf),
  }
}

function revocationOf({ kind, subject, epoch }: FeedRow): Revocation {
  if (kind === 'keys') return { kind }
  if (kind === 'session') return { kind, id: subject ?? '' }
  return { kind, id: (subject ?? '') as UserId, epoch: epoch ?? 0 }
}

/** Forgets what no token can be about any more; returns how many. */
export async function purgeRevocations(db: Kysely<UsersSchema>): Promise<number> {
  const purged = await sql`delete from revocations where forget_at < app_now()`.execute(db)
  return Number(purged.numAffectedRows ?? 0)
}
