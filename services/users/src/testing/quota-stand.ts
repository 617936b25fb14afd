import { systemIds, type TenantId, type UserId } from '@cloudphone/contracts/id'
import { openDatabase } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS, migrate } from '@cloudphone/db/migrate'
import type { DatabaseTarget } from '@cloudphone/db/target'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { OUTBOX_MIGRATIONS, openOutbox } from '@cloudphone/outbox/open-outbox'
import { openAuditLog } from '@cloudphone/runtime/audit-log'
import { RUNTIME_MIGRATIONS } from '@cloudphone/runtime/idempotency'
import { ensureTenant, insertAccount } from '../db/account-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import { judgeInvariants } from '../domain/invariants.ts'
import { QuotaService } from '../domain/quota-service.ts'
import { openTelemetry } from '../telemetry.ts'

const most = 100_000_000
const wide = { maxDevices: most, maxCpu: most, maxMemory: most, maxStorage: most, maxSessions: most }

/** Quota alone on an empty database, for measuring: what it can do without HTTP around it. */
export interface QuotaStand extends AsyncDisposable {
  readonly quotas: Pick<QuotaService, 'reserve' | 'commit' | 'release'>
  readonly people: readonly { readonly userId: UserId; readonly tenantId: TenantId }[]
  /** Counters that are not the sum of their reservations. */
  countWrong(): Promise<number>
}

/** Lays the tables down and makes tenants with their users, whose limits are out of the way. */
export async function openQuotaStand(
  url: DatabaseTarget,
  { tenants, usersOfEach, poolSize }: { tenants: number; usersOfEach: number; poolSize: number },
): Promise<QuotaStand> {
  const log = silentLog()
  const directories = [
    ...[APP_NOW_MIGRATIONS, OUTBOX_MIGRATIONS, RUNTIME_MIGRATIONS],
    new URL('../db/migrations/', import.meta.url),
  ]
  await migrate({ url, schema: 'users', directories, log })
  const database = openDatabase<UsersSchema>({
    ...{ url, schema: 'users', poolSize, applicationName: 'quota stand', log },
  })
  const people: { userId: UserId; tenantId: TenantId }[] = []
  for (let tenant = 0; tenant < tenants; tenant += 1) {
    const slug = `tenant-${tenant}`
    const tenantId = await ensureTenant(database.kysely, { id: systemIds.next(), slug, name: slug })
    for (let user = 0; user < usersOfEach; user += 1) {
      const userId = systemIds.next<'user'>()
      await insertAccount(database.kysely, {
        ...{ id: userId, tenantId, email: `${userId}@example.com`, name: 'somebody' },
        ...{ role: 'member', passwordHash: 'none' },
      })
      people.push({ userId, tenantId })
    }
  }
  return {
    people,
    quotas: new QuotaService({
      ...{ database, telemetry: openTelemetry(log, openMetrics('users')) },
      audit: openAuditLog({ database, ids: systemIds, log, name: 'users' }),
      outbox: openOutbox({ source: 'users', ids: systemIds, wake: () => undefined }),
      defaults: { user: wide, tenant: wide },
    }),
    countWrong: async () => {
      const { reports } = await judgeInvariants(database)
      return reports.reduce((sum, { culprits }) => sum + culprits.length, 0)
    },
    [Symbol.asyncDispose]: () => database.close(),
  }
}
