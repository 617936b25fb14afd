import * as api from '@cloudphone/contracts/api/tenants-api'
import { decodeCursor, pageOf } from '@cloudphone/runtime/cursor'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { TenantService } from '../domain/tenant-service.ts'
import { viewOfTenant } from './identity.view.ts'

/** Tenants over HTTP. */
export function tenantRoutes(tenants: TenantService): Binding[] {
  return [
    bind(api.CreateTenant, async ({ caller, body }) => viewOfTenant(await tenants.create(caller, body))),
    bind(api.ListTenants, async ({ query: { cursor, limit } }) => {
      const rows = await tenants.list({ beforeId: decodeCursor(cursor), limit })
      return pageOf(rows, limit, viewOfTenant, ({ id }) => id)
    }),
    bind(api.GetTenant, async ({ params }) => viewOfTenant(await tenants.get(params.tenantId))),
    bind(api.RenameTenant, async ({ params, body }) =>
      viewOfTenant(await tenants.rename(params.tenantId, body.name)),
    ),
    bind(api.SuspendTenant, async ({ params }) => viewOfTenant(await tenants.suspend(params.tenantId))),
    bind(api.ActivateTenant, async ({ params }) => viewOfTenant(await tenants.activate(params.tenantId))),
  ]
}
