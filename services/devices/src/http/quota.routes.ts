import { CheckQuota } from '@cloudphone/contracts/api/quota-api'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { QuotaCache } from '../domain/quota-cache.ts'

/** Whether a phone would fit, out of the cache. */
export function quotaRoutes(cache: QuotaCache): readonly Binding[] {
  return [
    bind(CheckQuota, async ({ caller: { userId }, query }) => {
      const { cpuCores, memoryMB: memoryMb, storageMB: storageMb, fresh } = query
      if (fresh) await cache.refresh(userId)
      const { excess, quota, source } = await cache.check(userId, { cpuCores, memoryMb, storageMb })
      const { user, tenant } = quota
      return { fits: excess === undefined, excess: excess ?? null, source, user, tenant }
    }),
  ]
}
