import type { Role } from '@cloudphone/contracts/access'
import type { TenantId, UserId } from '@cloudphone/contracts/id'
import { type Kysely, sql } from 'kysely'
import type { InvitationRecord } from '../domain/invitation.ts'
import type { UsersSchema } from './schema.ts'

/** What a token of an account is for. */
export type AccountPurpose = 'password_reset' | 'email_verification'

const invitationColumns = sql`id, email, tenant_id as "tenantId", role, created_at as "createdAt",
  expires_at as "expiresAt"`

/** Makes a token about an account, or prolongs the one of this id; false when that one was used. */
export async function putAccountToken(
  tx: Kysely<UsersSchema>,
  token: {
    id: string
    purpose: AccountPurpose
    tokenHash: Buffer
    email: string
    userId: UserId
    lifeMinutes: number
  },
): Promise<boolean> {
  const put = await sql`
    insert into one_time_tokens as known (id, purpose, token_hash, email, user_id, expires_at)
    values (${token.id}, ${token.purpose}, ${token.tokenHash}, ${token.email}, ${token.userId},
            app_now() + make_interval(mins => ${token.lifeMinutes}))
    on conflict (id) do update set expires_at = excluded.expires_at
    where known.used_at is null`.execute(tx)
  return put.numAffectedRows === 1n
}

/** Uses a token up, once, whoever else tries; undefined when it is unknown, used or expired. */
export async function useAccountToken(
  tx: Kysely<UsersSchema>,
  { tokenHash, purpose }: { tokenHash: Buffer; purpose: AccountPurpose },
): Promise<{ userId: UserId; email: string } | undefined> {
  const used = await sql<{ userId: UserId; email: string }>`
    update one_time_tokens set used_at = app_now()
    where token_hash = ${tokenHash} and purpose = ${purpose} and used_at is null and expires_at > app_now()
    returning user_id as "userId", email`.execute(tx)
  return used.rows[0]
}

/** Whose token it is, without using it; undefined when it could not be used. */
export async function findAccountToken(
  db: Kysely<UsersSchema>,
  { tokenHash, purpose }: { tokenHash: Buffer; purpose: AccountPurpose },
): Promise<UserId | undefined> {
  const found = await sql<{ userId: UserId }>`
    select user_id as "userId" from one_time_tokens
    where token_hash = ${tokenHash} and purpose = ${purpose} and used_at is null
      and expires_at > app_now()`.execute(db)
  return found.rows[0]?.userId
}

/** Makes all tokens about an account useless. */
export async function dropAccountTokens(tx: Kysely<UsersSchema>, userId: UserId): Promise<void> {
  await sql`delete from one_time_tokens where user_id = ${userId}`.execute(tx)
}

/** Makes an invitation; that of the same id stays as it is. Undefined when it was accepted or is expired. */
export async function putInvitation(
  tx: Kysely<UsersSchema>,
  invitation: {
    id: string
    tokenHash: Buffer
    email: string
    tenantId: TenantId
    role: Role
    invitedBy: UserId | null
    lifeMinutes: number
  },
): Promise<InvitationRecord | undefined> {
  await sql`
    insert into one_time_tokens (id, purpose, token_hash, email, tenant_id, role, invited_by, expires_at)
    values (${invitation.id}, 'invitation', ${invitation.tokenHash}, ${invitation.email}, ${invitation.tenantId},
            ${invitation.role}, ${invitation.invitedBy},
            app_now() + make_interval(mins => ${invitation.lifeMinutes}))
    on conflict (id) do nothing`.execute(tx)
  return findInvitation(tx, invitation.id)
}

/** An invitation that can still be accepted. */
export async function findInvitation(
  db: Kysely<UsersSchema>,
  id: string,
): Promise<InvitationRecord | undefined> {
  const found = await sql<InvitationRecord>`
    select ${invitationColumns} from one_time_tokens
    where id = ${id} and purpose = 'invitation' and used_at is null and expires_at > app_now()`.execute(db)
  return found.rows[0]
}

/** The invitation of a token, without using it. */
export async function findInvitationByToken(
  db: Kysely<UsersSchema>,
  tokenHash: Buffer,
): Promise<InvitationRecord | undefined> {
  const found = await sql<InvitationRecord>`
    select ${invitationColumns} from one_time_tokens
    where token_hash = ${tokenHash} and purpose = 'invitation' and used_at is null
      and expires_at > app_now()`.execute(db)
  return found.rows[0]
}

/** Accepts an invitation, once, whoever else tries; undefined when it is unknown, used or expired. */
export async function useInvitation(
  tx: Kysely<UsersSchema>,
  tokenHash: Buffer,
): Promise<InvitationRecord | undefined> {
  const used = await sql<InvitationRecord>`
    update one_time_tokens set used_at = app_now()
    where token_hash = ${tokenHash} and purpose = 'invitation' and used_at is null and expires_at > app_now()
    returning ${invitationColumns}`.execute(tx)
  return used.rows[0]
}

/** A tenant's invitations that can be accepted, the newest first; `limit + 1` of them when there are more. */
export async function listInvitations(
  db: Kysely<UsersSchema>,
  query: { tenantId: TenantId; beforeId: string | undefined; limit: number },
): Promise<InvitationRecord[]> {
  const found = await sql<InvitationRecord>`
    select ${invitationColumns} from one_time_tokens
    where tenant_id = ${query.tenantId} and purpose = 'invitation' and used_at is null
      and expires_at > app_now()
      and (${query.beforeId ?? null}::uuid is null or id < ${query.beforeId ?? null}::uuid)
    order by id desc limit ${query.limit + 1}`.execute(db)
  return found.rows
}

/** Takes an invitation of a tenant back; false when there is none that could be accepted. */
export async function deleteInvitation(
  tx: Kysely<UsersSchema>,
  { id, tenantId }: { id: string; tenantId: TenantId },
): Promise<boolean> {
  const deleted = await sql`
    delete from one_time_tokens
    where id = ${id} and tenant_id = ${tenantId} and purpose = 'invitation' and used_at is null
      and expires_at > app_now()`.execute(tx)
  return deleted.numAffectedRows === 1n
}

/** Forgets tokens that nobody can use any more; returns how many. */
export async function purgeTokens(db: Kysely<UsersSchema>): Promise<number> {
  const purged = await sql`
    delete from one_time_tokens where expires_at < app_now() - make_interval(days => 7)`.execute(db)
  return Number(purged.numAffectedRows ?? 0)
}
