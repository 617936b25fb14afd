import type { User } from '@cloudphone/contracts/api/users-api'
import type { Account } from '../domain/account.ts'
import type { ApiKey } from '../domain/api-key.ts'
import type { KeyRecord } from '../domain/key-record.ts'
import type { SessionRecord } from '../domain/session.ts'
import type { Grant } from '../domain/session-service.ts'

export function viewOfAccount(account: Account): User {
  return {
    id: account.id,
    tenantId: account.tenantId,
    email: account.email,
    name: account.name,
    role: account.role,
    status: account.status,
    createdAt: account.createdAt.toISOString(),
  }
}

export function viewOfGrant(grant: Grant) {
  return {
    accessToken: grant.accessToken,
    refreshToken: grant.refreshToken,
    tokenType: 'Bearer' as const,
    expiresIn: grant.expiresInSeconds,
    user: viewOfAccount(grant.account),
  }
}

export function viewOfApiKey(key: ApiKey) {
  return {
    id: key.id,
    name: key.name,
    scopes: key.scopes === null ? null : [...key.scopes],
    prefix: key.prefix,
    createdAt: key.createdAt.toISOString(),
    expiresAt: key.expiresAt?.toISOString() ?? null,
    lastUsedAt: key.lastUsedAt?.toISOString() ?? null,
  }
}

export function viewOfSigningKey({ kid, active, createdAt, activatesAt, goneAt }: KeyRecord) {
  const state = active ? ('active' as const) : goneAt === null ? ('next' as const) : ('retired' as const)
  return {
    ...{ kid, state, createdAt: createdAt.toISOString() },
    activatesAt: activatesAt?.toISOString() ?? null,
    goneAt: goneAt?.toISOString() ?? null,
  }
}

export function viewOfSession(session: SessionRecord, currentId: string) {
  return {
    id: session.id,
    current: session.id === currentId,
    createdAt: session.createdAt.toISOString(),
    lastUsedAt: session.lastUsedAt.toISOString(),
    expiresAt: session.expiresAt.toISOString(),
  }
}
