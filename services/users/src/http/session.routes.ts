import * as api from '@cloudphone/contracts/api/users-api'
import { decodeCursor, pageOf } from '@cloudphone/runtime/cursor'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { Revocations } from '../domain/revocations.ts'
import type { SessionService } from '../domain/session-service.ts'
import type { SigningKeyService } from '../domain/signing-key-service.ts'
import { viewOfSession, viewOfSigningKey } from './account.view.ts'

/** What lets people in, and ends it: sessions, signing keys, and the feed of what was revoked. */
export function sessionRoutes({
  sessions,
  signingKeys,
  revocations,
}: {
  sessions: SessionService
  signingKeys: SigningKeyService
  revocations: Revocations
}): Binding[] {
  return [
    bind(api.ListSessions, async ({ caller, params, query: { cursor, limit } }) => {
      const rows = await sessions.list(caller, params.userId, { beforeId: decodeCursor(cursor), limit })
      const view = (row: (typeof rows)[number]) => viewOfSession(row, caller.sessionId)
      return pageOf(rows, limit, view, ({ id }) => id)
    }),
    bind(api.RevokeSession, async ({ caller, params }) => {
      await sessions.revoke(caller, params.userId, params.sessionId)
      return undefined
    }),
    bind(api.RevokeSessions, async ({ caller, params }) => ({
      revoked: await sessions.revokeAll(caller, params.userId),
    })),
    bind(api.ListSigningKeys, async () => {
      const keys = await signingKeys.list()
      return { items: keys.map(viewOfSigningKey), nextCursor: null }
    }),
    bind(api.RotateSigningKey, async ({ body }) =>
      viewOfSigningKey(await (body.compromised ? signingKeys.replaceCompromised() : signingKeys.rotate())),
    ),
    bind(api.ListRevocations, ({ query, signal }) =>
      revocations.since(query.after, { waitMs: query.wait * 1000, signal }),
    ),
  ]
}
