import * as api from '@cloudphone/contracts/api/users-api'
import { decodeCursor, pageOf } from '@cloudphone/runtime/cursor'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { JSONWebKeySet } from 'jose'
import type { AccountService } from '../domain/account-service.ts'
import type { ApiKeyService } from '../domain/api-key-service.ts'
import type { SessionService } from '../domain/session-service.ts'
import { viewOfAccount, viewOfApiKey, viewOfGrant } from './account.view.ts'

/** Sessions, accounts and API keys over HTTP. `publicKeys` is asked at each request for the key set. */
export function accountRoutes({
  sessions,
  accounts,
  apiKeys,
  publicKeys,
}: {
  sessions: SessionService
  accounts: AccountService
  apiKeys: ApiKeyService
  publicKeys: () => Promise<JSONWebKeySet['keys']>
}): Binding[] {
  return [
    bind(api.Login, async ({ body, clientAddress }) =>
      viewOfGrant(await sessions.login({ ...body, address: clientAddress() })),
    ),
    bind(api.Refresh, async ({ body }) => viewOfGrant(await sessions.refresh(body.refreshToken))),
    bind(api.Logout, async ({ body }) => {
      await sessions.logout(body.refreshToken)
      return undefined
    }),
    bind(api.Me, async ({ caller }) => {
      const { account, permissions } = await accounts.me(caller)
      return { ...viewOfAccount(account), permissions }
    }),
    bind(api.CreateUser, async ({ caller, body }) => viewOfAccount(await accounts.create(caller, body))),
    bind(api.ListUsers, async ({ caller, query }) => {
      const rows = await accounts.list(caller, { beforeId: decodeCursor(query.cursor), limit: query.limit })
      return pageOf(rows, query.limit, viewOfAccount, ({ id }) => id)
    }),
    bind(api.GetUser, async ({ caller, params }) => viewOfAccount(await accounts.get(caller, params.userId))),
    bind(api.CreateApiKey, async ({ caller, body }) => {
      const { key, ...made } = await apiKeys.create(caller, body)
      return { ...viewOfApiKey(made), key }
    }),
    bind(api.ListApiKeys, async ({ caller, query }) => {
      const rows = await apiKeys.list(caller, { beforeId: decodeCursor(query.cursor), limit: query.limit })
      return pageOf(rows, query.limit, viewOfApiKey, ({ id }) => id)
    }),
    bind(api.DeleteApiKey, async ({ caller, params }) => {
      await apiKeys.delete(caller, params.apiKeyId)
      return undefined
    }),
    bind(api.RotateApiKey, async ({ caller, params, body }) => {
      const { key, ...made } = await apiKeys.rotate(caller, params.apiKeyId, body.overlapSeconds)
      return { ...viewOfApiKey(made), key }
    }),
    bind(api.Jwks, async () => ({
      keys: (await publicKeys()).map((key) => ({ ...key, kid: key.kid ?? '', kty: key.kty ?? '' })),
    })),
    bind(api.ExchangeApiKey, ({ body }) => apiKeys.exchange(body.key)),
  ]
}
