import {
  CommitQuota,
  type QuotaLimits,
  type QuotaUse,
  ReadQuota,
  ReleaseQuota,
  ReserveQuota,
} from '@cloudphone/contracts/api/quota-api'
import type { TenantId, UserId } from '@cloudphone/contracts/id'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { type Binding, bind, openHttpServer } from '@cloudphone/runtime/http-server'
import { common, defineProblems } from '@cloudphone/runtime/problem'
import { openTokenVerifier, type ServiceTokens } from '@cloudphone/runtime/tokens'

const problems = defineProblems({
  quota_exceeded: [403, 'The quota is used up.'],
  user_not_found: [404, 'There is no such user.'],
  reservation_released: [409, 'The reservation was released.'],
  reservation_not_found: [404, 'There is no such reservation.'],
})

export type ReservationState = 'reserved' | 'committed' | 'released'

/** What the users service would keep of quota, as plain maps that a test can look into and change. */
export interface QuotaDoor {
  /** Reservations by id. */
  readonly reservations: Map<string, ReservationState>
  /** Users without any quota. */
  readonly poor: Set<string>
  /** What is answered about users; others are unknown to `readQuota` and may reserve. */
  readonly books: Map<string, { tenantId: TenantId; limits: QuotaLimits; used: QuotaUse }>
  /** How often `readQuota` was asked. */
  reads: number
  /** While true nothing is answered but that nobody answers. */
  isAway: boolean
  readonly bindings: readonly Binding[]
}

/** The quota routes of the users service by the rules of their contracts, for services that are tested without it. */
export function quotaDoor(): QuotaDoor {
  const door: QuotaDoor = {
    ...{ reservations: new Map(), poor: new Set(), books: new Map(), reads: 0, isAway: false },
    bindings: [
      bind(ReadQuota, async ({ params: { userId } }) => {
        door.reads += 1
        assertHere(door)
        const book = door.books.get(userId)
        if (book === undefined) throw problems.user_not_found()
        const { tenantId, ...user } = book
        return { user: { userId, ...user }, tenant: { tenantId, limits: endless, used: user.used } }
      }),
      bind(ReserveQuota, async ({ body }) => {
        assertHere(door)
        const { reservationId, userId } = body
        const known = door.reservations.get(reservationId)
        if (known === 'released') throw problems.reservation_released()
        if (door.poor.has(userId)) throw problems.quota_exceeded()
        if (known === undefined) {
          door.reservations.set(reservationId, 'reserved')
          use(door, userId, body)
        }
        return { reservationId, state: known ?? ('reserved' as const) }
      }),
      bind(CommitQuota, async ({ params }) => {
        assertHere(door)
        const known = door.reservations.get(params.reservationId)
        if (known === undefined) throw problems.reservation_not_found()
        if (known === 'released') throw problems.reservation_released()
        door.reservations.set(params.reservationId, 'committed')
        return undefined
      }),
      bind(ReleaseQuota, async ({ params }) => {
        assertHere(door)
        door.reservations.set(params.reservationId, 'released')
        return undefined
      }),
    ],
  }
  return door
}

function assertHere({ isAway }: QuotaDoor): void {
  if (isAway) throw common.service_unavailable({ service: 'users' })
}

/** Opens the door as a users service of its own. */
export async function openQuotaDoor(
  serviceTokens: ServiceTokens,
): Promise<{ readonly address: string; readonly quota: QuotaDoor; close(): Promise<void> }> {
  const quota = quotaDoor()
  const tokens = openTokenVerifier({ fetchKeys: async () => ({ keys: [] }), now: () => new Date(0) })
  const server = await openHttpServer(
    {
      ...{ service: 'users', log: silentLog(), metrics: openMetrics('users'), sharedMetrics: undefined },
      ...{ tokens, serviceTokens, idempotency: undefined, ready: async () => true, uploadLimitBytes: 1 },
    },
    quota.bindings,
  )
  return { quota, address: await server.listen({ host: '127.0.0.1', port: 0 }), close: () => server.close() }
}

const endless: QuotaLimits = {
  ...{ maxDevices: 1e6, maxCpu: 1e6, maxMemory: 1e9, maxStorage: 1e9, maxSessions: 1e6 },
}

function use(door: QuotaDoor, userId: UserId, portion: QuotaUse): void {
  const book = door.books.get(userId)
  if (book === undefined) return
  const { devices, cpu, memory, storage, sessions } = book.used
  book.used = {
    devices: devices + portion.devices,
    cpu: cpu + portion.cpu,
    memory: memory + portion.memory,
    storage: storage + portion.storage,
    sessions: sessions + portion.sessions,
  }
}
