import { z } from 'zod'
import { TenantId, UserId } from '../id.ts'
import { item, list, none, PageQuery, route } from '../route.ts'

/** The most that may be held at a time: phones, CPU cores, MB of memory, MB of storage, pooled phones in use. */
export const QuotaLimits = z.object({
  maxDevices: z.int(),
  maxCpu: z.int(),
  maxMemory: z.int(),
  maxStorage: z.int(),
  maxSessions: z.int(),
})
export type QuotaLimits = z.infer<typeof QuotaLimits>

/** What is held, in the same units. */
export const QuotaUse = z.object({
  devices: z.int(),
  cpu: z.int(),
  memory: z.int(),
  storage: z.int(),
  sessions: z.int(),
})
export type QuotaUse = z.infer<typeof QuotaUse>

const UserQuota = z.object({ userId: UserId, limits: QuotaLimits, used: QuotaUse })
const TenantQuota = z.object({ tenantId: TenantId, limits: QuotaLimits, used: QuotaUse })

const limit = (most: number) => z.int().min(0).max(most).nullable().default(null)

/** New limits. Null, or left out: what the platform's settings say. */
const NewLimits = z.strictObject({
  maxDevices: limit(100_000),
  maxCpu: limit(1_600_000),
  maxMemory: limit(2_000_000_000),
  maxStorage: limit(2_000_000_000),
  maxSessions: limit(100_000),
})

const ByUser = z.strictObject({ userId: UserId })
const ByTenant = z.strictObject({ tenantId: TenantId })

export const GetQuota = route({
  name: 'getQuota',
  service: 'users',
  method: 'GET',
  path: '/api/users/:userId/quota',
  summary: 'Limits and use: phones, CPU cores, memory and storage in MB, pooled phones in use at a time.',
  access: { kind: 'user', permission: 'self' },
  params: ByUser,
  answer: item(UserQuota),
  problems: ['user_not_found'],
})

export const SetQuota = route({
  name: 'setQuota',
  service: 'users',
  method: 'PUT',
  path: '/api/users/:userId/quota',
  summary: 'Change the limits of an account. One that is null or left out goes back to the default.',
  access: { kind: 'user', permission: 'users:manage' },
  audit: 'quota.set',
  params: ByUser,
  body: NewLimits,
  answer: item(UserQuota),
  problems: ['user_not_found'],
})

export const GetTenantQuota = route({
  name: 'getTenantQuota',
  service: 'users',
  method: 'GET',
  path: '/api/tenants/:tenantId/quota',
  summary: 'Limits of a tenant, and what all its accounts together use.',
  access: { kind: 'user', permission: 'users:read' },
  params: ByTenant,
  answer: item(TenantQuota),
  problems: ['tenant_not_found'],
})

export const SetTenantQuota = route({
  name: 'setTenantQuota',
  service: 'users',
  method: 'PUT',
  path: '/api/tenants/:tenantId/quota',
  summary: 'Change the limits of any tenant. One that is null or left out goes back to the default.',
  access: { kind: 'user', permission: 'tenants:manage' },
  audit: 'tenant_quota.set',
  params: ByTenant,
  body: NewLimits,
  answer: item(TenantQuota),
  problems: ['tenant_not_found'],
})

const Held = z.object({ limits: QuotaLimits, used: QuotaUse })

export const CheckQuota = route({
  name: 'checkQuota',
  service: 'devices',
  method: 'GET',
  path: '/api/quota/check',
  summary:
    'Whether a new phone of one’s own would fit, by what was known in the last 60 s; with `fresh` by what is known now.',
  access: { kind: 'user', permission: 'devices:read' },
  query: z.strictObject({
    cpuCores: z.coerce.number().int().min(1).max(16).default(2),
    memoryMB: z.coerce.number().int().min(512).max(65_536).default(4096),
    storageMB: z.coerce.number().int().min(512).max(1_048_576).default(10_240),
    fresh: z.stringbool().default(false),
  }),
  answer: item(
    z.object({
      fits: z.boolean(),
      /** The limit that is in the way. */
      excess: z
        .object({
          whose: z.enum(['user', 'tenant']),
          resource: z.string(),
          limit: z.int(),
          used: z.int(),
          asked: z.int(),
        })
        .nullable(),
      /** `expired`: older than 60 s, since the users service does not answer. */
      source: z.enum(['cache', 'users', 'expired']),
      user: Held,
      tenant: Held,
    }),
  ),
  problems: ['user_not_found', 'service_unavailable'],
})

/* Between services. */

const ReservationId = z.guid().toLowerCase()

export const ReadQuota = route({
  name: 'readQuota',
  service: 'users',
  method: 'GET',
  path: '/internal/quota/users/:userId',
  summary: 'Limits and use of a user and of the user’s tenant, for caches.',
  access: { kind: 'service' },
  params: ByUser,
  answer: item(z.object({ user: UserQuota, tenant: TenantQuota })),
  problems: ['user_not_found'],
})

export const ReserveQuota = route({
  name: 'reserveQuota',
  service: 'users',
  method: 'POST',
  path: '/internal/quota/reservations',
  summary: 'Take quota of a user and of the user’s tenant for a time; idempotent by reservationId.',
  access: { kind: 'service' },
  body: z.strictObject({
    reservationId: ReservationId,
    userId: UserId,
    /** When given, a user of another tenant is `user_not_found`. */
    tenantId: TenantId.optional(),
    devices: z.int().min(0).max(1).default(1),
    cpu: z.int().min(0).max(1_600_000).default(0),
    memory: z.int().min(0).max(2_000_000_000).default(0),
    storage: z.int().min(0).max(2_000_000_000).default(0),
    sessions: z.int().min(0).max(1).default(0),
    ttlSeconds: z.int().min(1).max(86_400),
  }),
  answer: item(z.object({ reservationId: ReservationId, state: z.enum(['reserved', 'committed']) })),
  problems: [
    'quota_exceeded',
    'user_not_found',
    'user_suspended',
    'reservation_released',
    'reservation_conflict',
  ],
})

export const CommitQuota = route({
  name: 'commitQuota',
  service: 'users',
  method: 'POST',
  path: '/internal/quota/reservations/:reservationId/commit',
  summary: 'Keep a reservation until it is released; idempotent. An unknown or released one is refused.',
  access: { kind: 'service' },
  params: z.strictObject({ reservationId: ReservationId }),
  answer: none,
  problems: ['reservation_released', 'reservation_not_found'],
})

export const ReleaseQuota = route({
  name: 'releaseQuota',
  service: 'users',
  method: 'DELETE',
  path: '/internal/quota/reservations/:reservationId',
  summary:
    'Give quota back; idempotent. An unknown id leaves a tombstone that refuses a late reserve or commit.',
  access: { kind: 'service' },
  params: z.strictObject({ reservationId: ReservationId }),
  answer: none,
})

export const ListReservations = route({
  name: 'listReservations',
  service: 'users',
  method: 'GET',
  path: '/internal/quota/reservations',
  summary: 'Live reservations, for the doctor.',
  access: { kind: 'service' },
  query: PageQuery.extend({ limit: z.coerce.number().int().min(1).max(10_000).default(1000) }),
  answer: list(
    z.object({ reservationId: ReservationId, userId: UserId, state: z.enum(['reserved', 'committed']) }),
  ),
})
