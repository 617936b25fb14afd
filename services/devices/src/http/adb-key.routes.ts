import * as api from '@cloudphone/contracts/api/devices-api'
import { decodeOrdinalCursor, pageOf } from '@cloudphone/runtime/cursor'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { AdbKeyService } from '../domain/adb-key-service.ts'
import { adbKeyView } from './device.view.ts'

/** The routes about users' adb keys. */
export function adbKeyRoutes(keys: AdbKeyService): readonly Binding[] {
  return [
    bind(api.AddAdbKey, async ({ caller, body }) =>
      adbKeyView(await keys.add(caller, body.publicKey, body.label)),
    ),
    bind(api.ListAdbKeys, async ({ caller, query }) => {
      const rows = await keys.list(caller, {
        beforeOrdinal: decodeOrdinalCursor(query.cursor),
        limit: query.limit,
      })
      return pageOf(rows, query.limit, adbKeyView, (row) => String(row.ordinal))
    }),
    bind(api.DeleteAdbKey, async ({ caller, params }) => {
      await keys.remove(caller, params.adbKeyId)
      return undefined
    }),
  ]
}
