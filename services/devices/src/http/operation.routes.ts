import * as api from '@cloudphone/contracts/api/device-operations-api'
import { decodeCursorOf, pageOf } from '@cloudphone/runtime/cursor'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { PhoneOperations } from '../domain/phone-operations.ts'
import type { PhoneStreams } from '../domain/phone-streams.ts'

/** A page of what a phone has told whole, sorted by name. */
function pageByName<Item>(
  items: readonly Item[],
  { limit, cursor }: { limit: number; cursor?: string | undefined },
  nameOf: (item: Item) => string,
) {
  const after = decodeCursorOf(/^.+$/s, cursor)?.[0]
  const rest = after === undefined ? items : items.filter((item) => nameOf(item) > after)
  return pageOf(rest, limit, (item) => item, nameOf)
}

/** The routes about what one does on a phone that runs. */
export function operationRoutes(operations: PhoneOperations, streams: PhoneStreams): readonly Binding[] {
  const uncached = { 'cache-control': 'no-store' }
  return [
    bind(api.RunShell, async ({ caller, params, body, signal }) => ({
      body: await streams.shell({ caller, ...params, signal }, body),
      headers: uncached,
    })),
    bind(api.ReadLog, async ({ caller, params, query, signal }) => ({
      body: await streams.log({ caller, ...params, signal }, query),
      headers: uncached,
    })),
    bind(api.SendInput, async ({ caller, params, body, signal }) => {
      await operations.input({ caller, ...params, signal }, body.input)
      return undefined
    }),
    bind(api.ListPhoneApps, async ({ caller, params, query, signal }) => {
      const apps = await operations.apps({ caller, ...params, signal })
      return pageByName(apps, query, ({ packageName }) => packageName)
    }),
    bind(api.StartPhoneApp, async ({ caller, params: { deviceId, packageName }, signal }) => {
      await operations.power({ caller, deviceId, signal }, packageName, 'start')
      return undefined
    }),
    bind(api.StopPhoneApp, async ({ caller, params: { deviceId, packageName }, signal }) => {
      await operations.power({ caller, deviceId, signal }, packageName, 'stop')
      return undefined
    }),
    bind(api.RemovePhoneApp, async ({ caller, params: { deviceId, packageName }, signal }) => {
      await operations.removeApp({ caller, deviceId, signal }, packageName)
      return undefined
    }),
    bind(api.ListPhoneFiles, async ({ caller, params, query, signal }) => {
      const entries = await operations.files({ caller, ...params, signal }, query.path)
      const files = entries.map((entry) => ({ ...entry, modifiedAt: entry.modifiedAt.toISOString() }))
      return pageByName(files, query, ({ name }) => name)
    }),
    bind(api.PullFile, async ({ caller, params, query, signal }) => ({
      ...(await streams.pull({ caller, ...params, signal }, query)),
      headers: uncached,
    })),
    bind(api.PushFile, async ({ caller, params, query, upload, signal }) => {
      if (upload === undefined) throw new Error('pushFile: the binder gives every upload')
      return await streams.push({ caller, ...params, signal }, query.path, upload)
    }),
  ]
}
