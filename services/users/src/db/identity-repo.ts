import type { UserId } from '@cloudphone/contracts/id'
import { type Kysely, sql } from 'kysely'
import type { UsersSchema } from './schema.ts'

/** A sign-in at a provider that is under way. */
export interface Flow {
  readonly provider: string
  readonly state: string
  readonly nonce: string
  readonly codeVerifier: string
  readonly redirectUri: string
}

/** Begins a sign-in. */
export async function insertFlow(
  db: Kysely<UsersSchema>,
  flow: Flow & { flowHash: Buffer; lifeSeconds: number },
): Promise<void> {
  await sql`
    insert into oidc_flows (flow_hash, provider, state, nonce, code_verifier, redirect_uri, expires_at)
    values (${flow.flowHash}, ${flow.provider}, ${flow.state}, ${flow.nonce}, ${flow.codeVerifier},
            ${flow.redirectUri}, app_now() + make_interval(secs => ${flow.lifeSeconds}))`.execute(db)
}

/** Takes a sign-in to be finished, once; undefined when it is unknown, taken or expired. */
export async function takeFlow(db: Kysely<UsersSchema>, flowHash: Buffer): Promise<Flow | undefined> {
  const taken = await sql<Flow>`
    delete from oidc_flows where flow_hash = ${flowHash} and expires_at > app_now()
    returning provider, state, nonce, code_verifier as "codeVerifier",
              redirect_uri as "redirectUri"`.execute(db)
  return taken.rows[0]
}

/** Forgets sign-ins that nobody finished; returns how many. */
export async function purgeFlows(db: Kysely<UsersSchema>): Promise<number> {
  const purged = await sql`delete from oidc_flows where expires_at < app_now()`.execute(db)
  return Number(purged.numAffectedRows ?? 0)
}

/** Whose identity it is. */
export async function findIdentity(
  db: Kysely<UsersSchema>,
  { issuer, subject }: { issuer: string; subject: string },
): Promise<UserId | undefined> {
  const found = await sql<{ userId: UserId }>`
    select user_id as "userId" from identities
    where issuer = ${issuer} and subject = ${subject}`.execute(db)
  return found.rows[0]?.userId
}

/** Links an identity to an account; false when it is somebody's already. */
export async function insertIdentity(
  tx: Kysely<UsersSchema>,
  identity: { issuer: string; subject: string; userId: UserId },
): Promise<boolean> {
  const inserted = await sql`
    insert into identities (issuer, subject, user_id)
    values (${identity.issuer}, ${identity.subject}, ${identity.userId})
    on conflict (issuer, subject) do nothing`.execute(tx)
  return inserted.numAffectedRows === 1n
}
