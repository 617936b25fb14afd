import { on } from '@cloudphone/bus/consumer'
import { TenantQuotaUpdated, UserQuotaUpdated } from '@cloudphone/contracts/events/user-events'
import type { QuotaCache } from '../domain/quota-cache.ts'

/** Queue `devices.quota-updated`: changed limits are not in the cache any more. */
export function userEvents(cache: QuotaCache) {
  return [
    on(UserQuotaUpdated, async (_tx, { data }) => await cache.forgetUser(data.userId)),
    on(TenantQuotaUpdated, async (_tx, { data }) => await cache.forgetTenant(data.tenantId)),
  ]
}
