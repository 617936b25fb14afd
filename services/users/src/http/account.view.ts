import type { User } from '@cloudphone/contracts/api/users-api'
import type { Account } from '../domain/account.ts'
import type { ApiKey } from '../domain/api-key.ts'
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
    prefix: key.prefix,
    createdAt: key.createdAt.toISOString(),
    expiresAt: key.expiresAt?.toISOString() ?? null,
    lastUsedAt: key.lastUsedAt?.toISOString() ?? null,
  }
}
