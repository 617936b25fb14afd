import * as api from '@cloudphone/contracts/api/quota-api'
import { decodeCursor, pageOf } from '@cloudphone/runtime/cursor'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { QuotaService } from '../domain/quota-service.ts'

/** Quota over HTTP: for its owner, who manages users and who manages tenants, and between services. */
export function quotaRoutes(quotas: QuotaService): Binding[] {
  return [
    bind(api.GetQuota, ({ caller, params }) => quotas.get(caller, params.userId)),
    bind(api.SetQuota, ({ caller, params, body }) => quotas.setLimits(caller, params.userId, body)),
    bind(api.GetTenantQuota, ({ caller, params }) => quotas.getTenant(caller, params.tenantId)),
    bind(api.SetTenantQuota, ({ caller, params, body }) =>
      quotas.setTenantLimits(caller, params.tenantId, body),
    ),
    bind(api.ReadQuota, ({ params }) => quotas.read(params.userId)),
    bind(api.ReserveQuota, async ({ body }) => {
      const { reservationId, state } = await quotas.reserve(body)
      return { reservationId, state }
    }),
    bind(api.CommitQuota, async ({ params }) => {
      await quotas.commit(params.reservationId)
      return undefined
    }),
    bind(api.ReleaseQuota, async ({ params }) => {
      await quotas.release(params.reservationId)
      return undefined
    }),
    bind(api.ListReservations, async ({ query }) => {
      const rows = await quotas.listLive({ beforeId: decodeCursor(query.cursor), limit: query.limit })
      return pageOf(
        rows,
        query.limit,
        (row) => row,
        ({ reservationId }) => reservationId,
      )
    }),
  ]
}
