import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Caller, Role } from '@cloudphone/contracts/access'
import { systemIds, type TenantId } from '@cloudphone/contracts/id'
import { type Database, openDatabase } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { openFolderMailer } from '@cloudphone/mail/folder-mailer'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { OUTBOX_MIGRATIONS, openOutbox } from '@cloudphone/outbox/open-outbox'
import { type AuditLog, openAuditLog } from '@cloudphone/runtime/audit-log'
import { deriveKey } from '@cloudphone/runtime/derived-key'
import { RUNTIME_MIGRATIONS } from '@cloudphone/runtime/idempotency'
import { createTestDatabase, type TestClock, testClock } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import { ensureTenant } from '../db/account-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import { openTokenSigner, type TokenSigner } from '../domain/access-token.ts'
import { type Account, callerOf as callerIn } from '../domain/account.ts'
import { ApiKeyService } from '../domain/api-key-service.ts'
import { type Identity, type IdentityOptions, openIdentity } from '../domain/identity.ts'
import { openPasswordHasher } from '../domain/password-hasher.ts'
import type { QuotaDefaults, QuotaLimits } from '../domain/quota.ts'
import { QuotaService } from '../domain/quota-service.ts'
import { Revocations } from '../domain/revocations.ts'
import { limitsOf } from '../domain/sign-in-throttle.ts'
import { ensureSigningKey } from '../domain/signing-key.ts'
import { SigningKeyService } from '../domain/signing-key-service.ts'
import { systemSecrets } from '../secrets.ts'
import { openTelemetry, type UsersTelemetry } from '../telemetry.ts'

/** The domain of the users service over a real database of its own, with a clock that the test moves. */
export interface UsersRoom extends AsyncDisposable, Identity {
  readonly database: Database<UsersSchema>
  readonly audit: AuditLog
  readonly clock: TestClock
  readonly signer: TokenSigner
  readonly revocations: Revocations
  readonly signingKeys: SigningKeyService
  readonly apiKeys: ApiKeyService
  readonly quotas: QuotaService
  readonly telemetry: UsersTelemetry
  readonly password: string
  /** Where mails are put. */
  readonly mailFolder: string
  /** Sends what is due; returns every mail that was ever sent, with its token. */
  post(): Promise<{ to: string; subject: string; text: string; token: string }[]>
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
export async function openUsersRoom({
  poolSize = 10,
  ...options
}: { poolSize?: number } & Partial<IdentityOptions> = {}): Promise<UsersRoom> {
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
  const folder = await mkdtemp(join(tmpdir(), 'cloudphone-mail-'))
  const mailer = await openFolderMailer({ folder, from: 'Cloudphone <no-reply@phones.example>' })
  const identity = openIdentity(
    {
      ...base,
      outbox,
      hasher,
      signer,
      mailer,
      clock,
      deriveKey: (purpose) => deriveKey('of a test', purpose),
    },
    {
      ...{ registration: 'invitation', registrationTenant: 'default', linkUrl: undefined, providers: [] },
      ...{ limits: limitsOf({ account: 10, address: 100 }), accessTokenSeconds: 900, refreshTokenDays: 30 },
      ...options,
    },
  )
  const { accounts } = identity
  const password = 'correct horse battery'
  return {
    database,
    audit,
    clock,
    signer,
    revocations,
    ...identity,
    signingKeys: new SigningKeyService({ ...base, keepSeconds: 960, maxAgeDays: 90 }),
    password,
    mailFolder: folder,
    post: () => readMails(identity, folder),
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
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** The caller that a signed-in account is. */
export function callerOf(account: Account): Caller {
  return callerIn(account, 'test')
}

async function readMails({ mails }: Identity, folder: string) {
  await mails.deliver()
  const names = (await readdir(folder)).filter((name) => name.endsWith('.eml')).toSorted()
  const raw = await Promise.all(names.map((name) => readFile(join(folder, name), 'utf8')))
  return raw.map((message) => {
    const text = textOf(message)
    const headerOf = (name: string) => new RegExp(`^${name}: (.*?)\\r?$`, 'm').exec(message)?.[1] ?? ''
    const token = /([\w-]{43})\s*$/m.exec(text)?.[1] ?? ''
    return { to: headerOf('To'), subject: headerOf('Subject'), text, token }
  })
}

function textOf(message: string): string {
  const body = message.slice(message.search(/\r?\n\r?\n/)).trim()
  if (/^Content-Transfer-Encoding: base64/im.test(message)) return Buffer.from(body, 'base64').toString()
  const bytes = body
    .replaceAll(/=\r?\n/g, '')
    .replaceAll(/=([0-9A-F]{2})/g, (_whole, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
  return Buffer.from(bytes, 'latin1').toString()
}
