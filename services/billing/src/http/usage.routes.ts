import * as api from '@cloudphone/contracts/api/billing-api'
import { decodeCursor, pageOf } from '@cloudphone/runtime/cursor'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { UsageService } from '../domain/usage-service.ts'
import { viewOfSum, viewOfUsage } from './usage.view.ts'

/** Usage over HTTP. */
export function usageRoutes(usage: UsageService): Binding[] {
  return [
    bind(api.ListUsage, async ({ caller, query: { cursor, ...query } }) => {
      const rows = await usage.list(caller, { ...query, beforeOrdinal: ordinalOf(cursor) })
      return pageOf(rows, query.limit, viewOfUsage, ({ ordinal }) => String(ordinal))
    }),
    bind(api.UsageTotal, async ({ caller, query }) => viewOfSum(await usage.total(caller, query))),
  ]
}

/** Lists of this service are paged by ordinal; what is not a number is nobody's cursor and shows nothing. */
function ordinalOf(cursor: string | undefined): number | undefined {
  const text = decodeCursor(cursor)
  if (text === undefined) return undefined
  return /^\d{1,15}$/.test(text) ? Number(text) : 0
}
