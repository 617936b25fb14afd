/* Tenants: for the people of the tenant that runs the platform. */
import { z } from 'zod'
import { TenantId } from '../id.ts'
import { item, list, PageQuery, route } from '../route.ts'
import { Email } from './users-api.ts'

const Tenant = z.object({
  id: TenantId,
  slug: z.string(),
  name: z.string(),
  status: z.enum(['active', 'suspended']),
  createdAt: z.iso.datetime(),
})
const params = z.strictObject({ tenantId: TenantId })
const access = { kind: 'user', permission: 'tenants:manage' } as const
const Name = z.string().trim().min(1).max(100)

export const CreateTenant = route({
  name: 'createTenant',
  service: 'users',
  method: 'POST',
  path: '/api/tenants',
  summary: 'Make a tenant and invite its first administrator.',
  access,
  audit: 'tenant.create',
  body: z.strictObject({
    slug: z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/),
    name: Name,
    adminEmail: Email,
  }),
  answer: item(Tenant, 201),
  problems: ['tenant_slug_taken', 'email_taken'],
})

export const ListTenants = route({
  name: 'listTenants',
  service: 'users',
  method: 'GET',
  path: '/api/tenants',
  summary: 'All tenants.',
  access,
  query: PageQuery,
  answer: list(Tenant),
})

export const GetTenant = route({
  name: 'getTenant',
  service: 'users',
  method: 'GET',
  path: '/api/tenants/:tenantId',
  summary: 'One tenant.',
  access,
  params,
  answer: item(Tenant),
  problems: ['tenant_not_found'],
})

export const RenameTenant = route({
  name: 'renameTenant',
  service: 'users',
  method: 'PATCH',
  path: '/api/tenants/:tenantId',
  summary: 'Call a tenant by another name; its slug stays.',
  access,
  audit: 'tenant.rename',
  params,
  body: z.strictObject({ name: Name }),
  answer: item(Tenant),
  problems: ['tenant_not_found'],
})

export const SuspendTenant = route({
  name: 'suspendTenant',
  service: 'users',
  method: 'POST',
  path: '/api/tenants/:tenantId/suspend',
  summary: 'Lock all accounts of a tenant out.',
  access,
  audit: 'tenant.suspend',
  params,
  answer: item(Tenant),
  problems: ['tenant_not_found', 'platform_tenant'],
})

export const ActivateTenant = route({
  name: 'activateTenant',
  service: 'users',
  method: 'POST',
  path: '/api/tenants/:tenantId/activate',
  summary: 'Let the accounts of a tenant in again.',
  access,
  audit: 'tenant.activate',
  params,
  answer: item(Tenant),
  problems: ['tenant_not_found'],
})
