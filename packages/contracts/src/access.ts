import { z } from 'zod'
import type { TenantId, UserId } from './id.ts'

export const Role = z.enum(['admin', 'operator', 'member'])
export type Role = z.infer<typeof Role>

/** What a caller may do. A route names one; a role holds several. `:any` reaches beyond one's own things. */
export const Permission = z.enum([
  'users:manage',
  'devices:use',
  'devices:any',
  'devices:pool',
  'apps:use',
  'apps:any',
  'allocations:use',
  'allocations:any',
  'billing:read',
  'billing:any',
  'notifications:use',
  'sagas:read',
  'sagas:any',
  'platform:inspect',
  'platform:operate',
])
export type Permission = z.infer<typeof Permission>

const memberRights: readonly Permission[] = [
  'devices:use',
  'apps:use',
  'allocations:use',
  'billing:read',
  'notifications:use',
  'sagas:read',
]

/** Roles as data: the one table that says who may do what. */
const rights: Readonly<Record<Role, ReadonlySet<Permission>>> = {
  member: new Set(memberRights),
  operator: new Set([
    ...memberRights,
    'devices:any',
    'devices:pool',
    'apps:any',
    'allocations:any',
    'billing:any',
    'sagas:any',
    'platform:inspect',
    'platform:operate',
  ]),
  admin: new Set(Permission.options),
}

/** Who is asking, as the verified access token says it. */
export interface Caller {
  readonly userId: UserId
  readonly tenantId: TenantId
  readonly role: Role
  /** The session (refresh family) or API key behind the token. */
  readonly sessionId: string
}

/** True when the caller's role holds the right. */
export function may(caller: Caller, permission: Permission): boolean {
  return rights[caller.role].has(permission)
}
