import { z } from 'zod'
import type { TenantId, UserId } from './id.ts'

export const Role = z.enum(['admin', 'operator', 'member', 'viewer'])
export type Role = z.infer<typeof Role>

/**
 * What a caller may do. A route names one; a role holds several. `:read` looks, `:use` changes; `:any` reaches beyond
 * one's own things, for whatever of the two the caller may do.
 */
export const Permission = z.enum([
  /** One's own credentials: password, second factor, sessions, API keys. */
  'account:manage',
  'users:read',
  'users:manage',
  'tenants:manage',
  'devices:read',
  'devices:use',
  'devices:any',
  'devices:pool',
  'apps:read',
  'apps:use',
  'apps:any',
  'allocations:read',
  'allocations:use',
  'allocations:any',
  'billing:read',
  'billing:any',
  'notifications:use',
  'sagas:read',
  'sagas:any',
  'sagas:operate',
  'audit:read',
  'platform:inspect',
  'platform:operate',
])
export type Permission = z.infer<typeof Permission>

/** What everybody may do with one's own things. */
const viewsOfOwn: readonly Permission[] = [
  'account:manage',
  'devices:read',
  'apps:read',
  'allocations:read',
  'billing:read',
  'notifications:use',
  'sagas:read',
]
const uses: readonly Permission[] = ['devices:use', 'apps:use', 'allocations:use']
/** What reaches over the whole tenant, and over the platform for who belongs to the platform's own tenant. */
const viewsOfAll: readonly Permission[] = [
  'users:read',
  'devices:any',
  'apps:any',
  'allocations:any',
  'billing:any',
  'sagas:any',
  'audit:read',
  'platform:inspect',
]

/** Roles as data: the one table that says who may do what. */
const rights: Readonly<Record<Role, ReadonlySet<Permission>>> = {
  viewer: new Set([...viewsOfOwn, ...viewsOfAll]),
  member: new Set([...viewsOfOwn, ...uses]),
  operator: new Set([
    ...viewsOfOwn,
    ...viewsOfAll,
    ...uses,
    'devices:pool',
    'sagas:operate',
    'platform:operate',
  ]),
  admin: new Set(Permission.options),
}

/** What concerns all tenants: only for callers of the tenant that runs the platform, whatever the role in another. */
const platformOnly: ReadonlySet<Permission> = new Set([
  'tenants:manage',
  'platform:inspect',
  'platform:operate',
])

/** Who is asking, as the verified access token says it. */
export interface Caller {
  readonly userId: UserId
  readonly tenantId: TenantId
  readonly role: Role
  /** The session (refresh family) or API key behind the token. */
  readonly sessionId: string
  /** True for somebody of the tenant that runs the platform. */
  readonly isPlatform?: boolean
  /** What an API key was narrowed to; absent where the role alone decides. */
  readonly scopes?: readonly Permission[]
  /** Which issue of the user's tokens this is: older ones are refused once the users service has raised it. */
  readonly epoch?: number
}

/** True when the caller's role holds the right, in the caller's tenant and within the scopes of an API key. */
export function may(caller: Caller, permission: Permission): boolean {
  if (!rights[caller.role].has(permission)) return false
  if (platformOnly.has(permission) && caller.isPlatform !== true) return false
  return caller.scopes === undefined || caller.scopes.includes(permission)
}
