import type { TenantId, UserId } from '@cloudphone/contracts/id'
import { type Kysely, sql } from 'kysely'
import type { SessionRecord } from '../domain/session.ts'
import type { UsersSchema } from './schema.ts'

interface TokenLife {
  readonly sessionId: string
  readonly tokenHash: Buffer
  readonly lifeDays: number
}

/**
 * Holds an account as it is until the transaction ends; false when it is not so any more. Who ends its sessions changes
 * its row first: thus each new session is either seen by them or begins after them, and then not at all.
 */
export async function holdAccount(
  tx: Kysely<UsersSchema>,
  { id, tokenEpoch }: { id: UserId; tokenEpoch: number },
  passwordHash: string | undefined,
): Promise<boolean> {
  const held = await sql`
    select from users
    where id = ${id} and status = 'active' and token_epoch = ${tokenEpoch}
      and (${passwordHash ?? null}::text is null or password_hash = ${passwordHash ?? null})
    for share`.execute(tx)
  return held.rows.length === 1
}

/** Begins a session with its first refresh token. */
export async function insertSession(
  tx: Kysely<UsersSchema>,
  session: TokenLife & { userId: UserId },
): Promise<void> {
  await sql`
    insert into sessions (id, user_id, last_used_at, expires_at)
    values (${session.sessionId}, ${session.userId}, app_now(),
            app_now() + make_interval(days => ${session.lifeDays}))`.execute(tx)
  await insertToken(tx, session)
}

/** Adds the next token of a session. The unique index refuses it while another of the session is unused. */
export async function insertToken(tx: Kysely<UsersSchema>, token: TokenLife): Promise<void> {
  await sql`
    insert into refresh_tokens (token_hash, session_id, expires_at)
    values (${token.tokenHash}, ${token.sessionId},
            app_now() + make_interval(days => ${token.lifeDays}))`.execute(tx)
}

/**
 * Uses up a token and prolongs its session: once, whoever else tries at the same time. Undefined when it is unknown,
 * used, expired, or of a revoked session.
 */
export async function useToken(
  tx: Kysely<UsersSchema>,
  { tokenHash, lifeDays }: { tokenHash: Buffer; lifeDays: number },
): Promise<{ sessionId: string; userId: UserId } | undefined> {
  const used = await sql<{ sessionId: string; userId: UserId }>`
    with used as (
      update refresh_tokens set used_at = app_now()
      where token_hash = ${tokenHash} and used_at is null and expires_at > app_now()
      returning session_id
    )
    update sessions set last_used_at = app_now(), expires_at = app_now() + make_interval(days => ${lifeDays})
    from used where sessions.id = used.session_id and sessions.revoked_at is null
    returning sessions.id as "sessionId", sessions.user_id as "userId"`.execute(tx)
  return used.rows[0]
}

/** A session that has just ended, and whose it was. */
export interface EndedSession {
  readonly sessionId: string
  readonly userId: UserId
  readonly tenantId: TenantId
}

/** Ends the session of a token that was used before; undefined when there is nothing to end. */
export async function revokeReused(
  tx: Kysely<UsersSchema>,
  tokenHash: Buffer,
): Promise<EndedSession | undefined> {
  const revoked = await sql<EndedSession>`
    update sessions set revoked_at = app_now(), revoke_reason = 'reuse'
    from refresh_tokens, users
    where refresh_tokens.token_hash = ${tokenHash} and refresh_tokens.used_at is not null
      and sessions.id = refresh_tokens.session_id and users.id = sessions.user_id and sessions.revoked_at is null
    returning sessions.id as "sessionId", users.id as "userId", users.tenant_id as "tenantId"`.execute(tx)
  return revoked.rows[0]
}

/** Ends the session that a token belongs to; undefined when it is unknown or ended already. */
export async function revokeByToken(
  tx: Kysely<UsersSchema>,
  tokenHash: Buffer,
): Promise<EndedSession | undefined> {
  const revoked = await sql<EndedSession>`
    update sessions set revoked_at = app_now(), revoke_reason = 'logout'
    from refresh_tokens, users
    where refresh_tokens.token_hash = ${tokenHash}
      and sessions.id = refresh_tokens.session_id and users.id = sessions.user_id and sessions.revoked_at is null
    returning sessions.id as "sessionId", users.id as "userId", users.tenant_id as "tenantId"`.execute(tx)
  return revoked.rows[0]
}

/** Deletes sessions that ended or expired a while ago, with their tokens; returns how many. */
export async function purgeSessions(db: Kysely<UsersSchema>, keepDays: number): Promise<number> {
  const purged = await sql`
    delete from sessions where id in (
      select id from sessions
      where least(expires_at, revoked_at) < app_now() - make_interval(days => ${keepDays})
      limit 1000
    )`.execute(db)
  return Number(purged.numAffectedRows ?? 0)
}

/** A user's live sessions, the newest first, from below `beforeId` on; `limit + 1` of them when there are more. */
export async function listSessions(
  db: Kysely<UsersSchema>,
  query: { userId: UserId; beforeId: string | undefined; limit: number },
): Promise<SessionRecord[]> {
  const found = await sql<SessionRecord>`
    select id, created_at as "createdAt", last_used_at as "lastUsedAt", expires_at as "expiresAt"
    from sessions
    where user_id = ${query.userId} and revoked_at is null and expires_at > app_now()
      and (${query.beforeId ?? null}::uuid is null or id < ${query.beforeId ?? null}::uuid)
    order by id desc limit ${query.limit + 1}`.execute(db)
  return found.rows
}

/** Ends one session of a user; false when there is none that lives. */
export async function endSession(
  tx: Kysely<UsersSchema>,
  { sessionId, userId }: { sessionId: string; userId: UserId },
): Promise<boolean> {
  const ended = await sql`
    update sessions set revoked_at = app_now(), revoke_reason = 'revoked'
    where id = ${sessionId} and user_id = ${userId} and revoked_at is null and expires_at > app_now()`.execute(
    tx,
  )
  return ended.numAffectedRows === 1n
}
