import type { TenantId, UserId } from '@cloudphone/contracts/id'
import type { Kysely } from 'kysely'
import type { SchedulerSchema } from './schema.ts'

/** Notes in which tenant a user is; a user never moves, so the first word stands. */
export async function mirrorUser(
  tx: Kysely<SchedulerSchema>,
  user: { userId: UserId; tenantId: TenantId },
): Promise<void> {
  await tx
    .insertInto('user_mirror')
    .values({ user_id: user.userId, tenant_id: user.tenantId })
    .onConflict((conflict) => conflict.column('user_id').doNothing())
    .execute()
}

/** The tenant of a user; undefined for one that was never heard of. */
export async function findTenant(db: Kysely<SchedulerSchema>, userId: UserId): Promise<TenantId | undefined> {
  const row = await db
    .selectFrom('user_mirror')
    .select('tenant_id')
    .where('user_id', '=', userId)
    .executeTakeFirst()
  return row?.tenant_id
}
