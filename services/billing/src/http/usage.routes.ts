import * as api from '@cloudphone/contracts/api/billing-api'
import { decodeOrdinalCursor, pageOf } from '@cloudphone/runtime/cursor'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { UsageService } from '../domain/usage-service.ts'
import { viewOfSum, viewOfUsage } from './usage.view.ts'

/** Usage over HTTP. */
export function usageRoutes(usage: UsageService): Binding[] {
  return [
    bind(api.ListUsage, async ({ caller, query: { cursor, ...query } }) => {
      const rows = await usage.list(caller, { ...query, beforeOrdinal: decodeOrdinalCursor(cursor) })
      return pageOf(rows, query.limit, viewOfUsage, ({ ordinal }) => String(ordinal))
    }),
    bind(api.UsageTotal, async ({ caller, query }) => viewOfSum(await usage.total(caller, query))),
  ]
}
