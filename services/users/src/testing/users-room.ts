import type { Caller, Role } from '@cloudphone/contracts/access'
import { systemIds, type TenantId } from '@cloudphone/contracts/id'
import { type Database, openDatabase } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { OUTBOX_MIGRATIONS, openOutbox } from '@cloudphone/outbox/open-outbox'
import { type AuditLog, openAuditLog } from '@cloudphone/runtime/audit-log'
import { RUNTIME_MIGRATIONS } from '@cloudphone/runtime/idempotency'
import { createTestDatabase, type TestClock, testClock } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import { ensureTenant } from '../db/account-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import { openTokenSigner, type TokenSigner } from '../domain/access-token.ts'
import { type Account, callerOf as callerIn } from '../domain/account.ts'
import { AccountService } from '../domain/account-service.ts'
import { ApiKeyService } from '../domain/api-key-service.ts'
import { openPasswordHasher } from '../domain/password-hasher.ts'
import type { QuotaDefaults, QuotaLimits } from '../domain/quota.ts'
import { QuotaService } from '../domain/quota-service.ts'
import { Revocations } from '../domain/revocations.ts'
import { SessionService } from '../domain/session-service.ts'
import { ensureSigningKey } from '../domain/signing-key.ts'
import { SigningKeyService } from '../domain/signing-key-service.ts'
import { systemSecrets } from '../secrets.ts'
import { openTelemetry, type UsersTelemetry } from '../telemetry.ts'

/** The domain of the users service over a real database of its own, with a clock that the test moves. */
export interface UsersRoom extends AsyncDisposable {
  readonly database: Database<UsersSchema>
  readonly audit: AuditLog
  readonly clock: TestClock
  readonly signer: TokenSigner
  readonly revocations: Revocations
  readonly signingKeys: SigningKeyService
  readonly accounts: AccountService
  readonly sessions: SessionService
  readonly apiKeys: ApiKeyService
  readonly quotas: QuotaService
  readonly telemetry: UsersTelemetry
  readonly password: string
  /** An account in the tenant of this slug (`default` when absent), with `password`. */
  account(email: string, role?: Role, tenantSlug?: string): Promise<Account>
  suspend(account: Account): Promise<void>
  events(): Promise<{ event_type: string; aggregate_id: string; payload: unknown }[]>
}

export const someLimits: QuotaLimits = {
  ...{ maxDevices: 5, maxCpu: 16, maxMemory: 32_768, maxStorage: 65_536, maxSessions: 3 },
}
/** Of a tenant: out of the way, unless a test sets others. */
export const wideLimits: QuotaLimits = {
  ...{
    maxDevices: 10_000,
    maxCpu: 100_000,
    maxMemory: 100_000_000,
    maxStorage: 100_000_000,
    maxSessions: 10_000,
  },
}
export const someDefaults: QuotaDefaults = { user: someLimits, tenant: wideLimits }

/** Opens it. `poolSize`: how many statements at most run at a time. */
export async function openUsersRoom({ poolSize = 10 } = {}): Promise<UsersRoom> {
  const testDatabase = await createTestDatabase({
    migrations: [
      ...[APP_NOW_MIGRATIONS, OUTBOX_MIGRATIONS, RUNTIME_MIGRATIONS],
      new URL('../db/migrations/', import.meta.url),
    ],
    schema: 'users',
  })
  const log = silentLog()
  const clock = testClock(testDatabase)
  const database = openDatabase<UsersSchema>({
    url: testDatabase.url,
    schema: 'users',
    poolSize,
    applicationName: 'users test',
    log,
  })
  const outbox = openOutbox({ source: 'users', ids: systemIds, wake: () => undefined })
  const telemetry = openTelemetry(log, openMetrics('users'))
  const signer = openTokenSigner(() => ensureSigningKey(database.kysely, telemetry), clock)
  const revocations: Revocations = new Revocations({
    ...{ database, clock, keepSeconds: 1_200 },
    announce: () => {
      signer.forgetKey()
      revocations.wake()
    },
  })
  const hasher = await openPasswordHasher('nobody')
  const audit = openAuditLog({ database, ids: systemIds, log, name: 'users' })
  const base = { database, revocations, audit, ids: systemIds, telemetry }
  const accounts = new AccountService({ ...base, outbox, hasher })
  const password = 'correct horse battery'
  return {
    database,
    audit,
    clock,
    signer,
    revocations,
    signingKeys: new SigningKeyService({ ...base, keepSeconds: 960, maxAgeDays: 90 }),
    accounts,
    password,
    sessions: new SessionService({
      ...{ ...base, hasher, signer, secrets: systemSecrets },
      accessTokenSeconds: 900,
      refreshTokenDays: 30,
    }),
    apiKeys: new ApiKeyService({ ...base, signer, secrets: systemSecrets }),
    quotas: new QuotaService({ database, outbox, audit, telemetry, defaults: someDefaults }),
    telemetry,
    account: async (email, role = 'member', tenantSlug = 'default') => {
      const tenantId: TenantId = await ensureTenant(database.kysely, {
        id: systemIds.next<'tenant'>(),
        slug: tenantSlug,
        name: tenantSlug,
        is_platform: tenantSlug === 'default',
      })
      const maker: Caller = {
        userId: systemIds.next<'user'>(),
        tenantId,
        role: 'admin',
        sessionId: 'test',
      }
      return accounts.create(maker, { email, password, name: 'Somebody', role })
    },
    suspend: async (account) => {
      await sql`update users set status = 'suspended' where id = ${account.id}`.execute(database.kysely)
    },
    events: async () => {
      const rows = await sql<{ event_type: string; aggregate_id: string; payload: unknown }>`
        select event_type, aggregate_id, payload from event_outbox order by id`.execute(database.kysely)
      return rows.rows
    },
    [Symbol.asyncDispose]: async () => {
      await database.close()
      await testDatabase.drop()
    },
  }
}

/** The caller that a signed-in account is. */
export function callerOf(account: Account): Caller {
  return callerIn(account, 'test')
}
