import type { Permission } from '@cloudphone/contracts/access'
import type { UserId } from '@cloudphone/contracts/id'
import { type Kysely, sql } from 'kysely'
import type { ApiKey } from '../domain/api-key.ts'
import type { UsersSchema } from './schema.ts'

interface ApiKeyRow {
  id: string
  name: string
  scopes: Permission[] | null
  prefix: string
  created_at: Date
  expires_at: Date | null
  last_used_at: Date | null
}

const shown = ['id', 'name', 'scopes', 'prefix', 'created_at', 'expires_at', 'last_used_at'] as const

function apiKeyOf(row: ApiKeyRow): ApiKey {
  return {
    id: row.id,
    name: row.name,
    scopes: row.scopes,
    prefix: row.prefix,
    createdAt: row.created_at,
    expiresAt: row.expires_at,
    lastUsedAt: row.last_used_at,
  }
}

export async function insertApiKey(
  db: Kysely<UsersSchema>,
  key: {
    id: string
    userId: UserId
    name: string
    prefix: string
    keyHash: Buffer
    scopes: readonly Permission[] | undefined
    expiresInDays: number | undefined
  },
): Promise<ApiKey> {
  const row = await db
    .insertInto('api_keys')
    .values({
      id: key.id,
      user_id: key.userId,
      name: key.name,
      prefix: key.prefix,
      key_hash: key.keyHash,
      scopes: key.scopes === undefined ? null : [...key.scopes],
      expires_at:
        key.expiresInDays === undefined
          ? null
          : sql<Date>`app_now() + make_interval(days => ${key.expiresInDays})`,
    })
    .returning(shown)
    .executeTakeFirstOrThrow()
  return apiKeyOf(row)
}

/** A user's keys, the newest first, from below `beforeId` on; `limit + 1` of them when there are more. */
export async function listApiKeys(
  db: Kysely<UsersSchema>,
  query: { userId: UserId; beforeId: string | undefined; limit: number },
): Promise<ApiKey[]> {
  let select = db
    .selectFrom('api_keys')
    .select(shown)
    .where('user_id', '=', query.userId)
    .orderBy('id', 'desc')
    .limit(query.limit + 1)
  if (query.beforeId !== undefined) select = select.where(sql<boolean>`id < ${query.beforeId}::uuid`)
  return (await select.execute()).map(apiKeyOf)
}

/** Deletes a key of this user and gives what it was; undefined when there is none. */
export async function deleteApiKey(
  db: Kysely<UsersSchema>,
  { id, userId }: { id: string; userId: UserId },
): Promise<ApiKey | undefined> {
  const row = await db
    .deleteFrom('api_keys')
    .where('id', '=', id)
    .where('user_id', '=', userId)
    .returning(shown)
    .executeTakeFirst()
  return row && apiKeyOf(row)
}

/** What stands behind a good key. */
export interface KeyOwner {
  readonly apiKeyId: string
  readonly scopes: readonly Permission[] | null
  /** Seconds; null for a key without an end. */
  readonly leftSeconds: number | null
  readonly userId: UserId
}

/** The active user behind a good key; undefined for any other key. */
export async function findKeyOwner(db: Kysely<UsersSchema>, keyHash: Buffer): Promise<KeyOwner | undefined> {
  const found = await sql<KeyOwner>`
    select api_keys.id as "apiKeyId", api_keys.scopes, users.id as "userId",
           floor(extract(epoch from api_keys.expires_at - app_now()))::float8 as "leftSeconds"
    from api_keys join users on users.id = api_keys.user_id
    where api_keys.key_hash = ${keyHash} and users.status = 'active'
      and exists (select from tenants where tenants.id = users.tenant_id and tenants.status = 'active')
      and (api_keys.expires_at is null or api_keys.expires_at > app_now())`.execute(db)
  return found.rows[0]
}

/**
 * Makes the successor of a live key, with the same name, scopes and length of life, and lets the old one end after the
 * overlap; undefined when this user has no such key.
 */
export async function succeedApiKey(
  tx: Kysely<UsersSchema>,
  next: {
    id: string
    oldId: string
    userId: UserId
    prefix: string
    keyHash: Buffer
    overlapSeconds: number
  },
): Promise<ApiKey | undefined> {
  const made = await sql<ApiKeyRow>`
    with old as (
      update api_keys set expires_at = least(expires_at, app_now() + make_interval(secs => ${next.overlapSeconds}))
      where id = ${next.oldId} and user_id = ${next.userId} and (expires_at is null or expires_at > app_now())
      returning name, scopes
    ), life as (
      select expires_at - created_at as life from api_keys where id = ${next.oldId}
    )
    insert into api_keys (id, user_id, name, prefix, key_hash, scopes, expires_at)
    select ${next.id}, ${next.userId}, old.name, ${next.prefix}, ${next.keyHash}, old.scopes, app_now() + life.life
    from old, life
    returning id, name, scopes, prefix, created_at, expires_at, last_used_at`.execute(tx)
  const row = made.rows[0]
  return row && apiKeyOf(row)
}

/** Notes that a key was used, at most once a minute, so that a busy key does not become a busy row. */
export async function touchApiKey(db: Kysely<UsersSchema>, id: string): Promise<void> {
  await sql`
    update api_keys set last_used_at = app_now()
    where id = ${id} and (last_used_at is null or last_used_at < app_now() - interval '1 minute')`.execute(db)
}
