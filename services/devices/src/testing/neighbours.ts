/* The services that devices talks to, as far as a test needs them: real HTTP servers that speak the contracts, over plain
 * maps that a test can look into. */
import type { Role } from '@cloudphone/contracts/access'
import { GetApk } from '@cloudphone/contracts/api/apps-api'
import { CommitQuota, ReleaseQuota, ReserveQuota } from '@cloudphone/contracts/api/quota-api'
import { systemIds, type TenantId, type UserId } from '@cloudphone/contracts/id'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import { defineProblems } from '@cloudphone/runtime/problem'
import { callerOf } from '@cloudphone/testing/token-mint'
import type { Town } from '@cloudphone/testing/town'

const problems = defineProblems({
  quota_exceeded: [403, 'The quota is used up.'],
  reservation_released: [409, 'The reservation was released.'],
  reservation_not_found: [404, 'There is no such reservation.'],
  app_not_found: [404, 'There is no such app.'],
})

export interface Person {
  readonly userId: UserId
  readonly tenantId: TenantId
  readonly token: string
}

export interface Neighbours {
  /** Reservations by id: what the users service would count. */
  readonly quota: Map<string, 'reserved' | 'committed' | 'released'>
  /** Users without any quota. */
  readonly poor: Set<string>
  readonly apks: Map<string, Buffer>
  person(role: Role, tenantId?: TenantId): Person
}

/** Puts a users and an apps service into the town. */
export async function startNeighbours(town: Town): Promise<Neighbours> {
  const quota: Neighbours['quota'] = new Map()
  const apks: Neighbours['apks'] = new Map()
  const poor: Neighbours['poor'] = new Set()
  await town.neighbour('users', quotaBindings(quota, poor))
  await town.neighbour('apps', [
    bind(GetApk, async ({ params }) => {
      const body = apks.get(params.appId)
      if (body === undefined) throw problems.app_not_found()
      return { body, sizeBytes: body.length }
    }),
  ])
  return {
    ...{ quota, apks, poor },
    person: (role, tenantId = systemIds.next<'tenant'>()) => {
      const caller = callerOf({ role, tenantId })
      return { userId: caller.userId, tenantId, token: town.tokenFor(caller) }
    },
  }
}

function quotaBindings(quota: Neighbours['quota'], poor: Neighbours['poor']): Binding[] {
  return [
    bind(ReserveQuota, async ({ body }) => {
      const known = quota.get(body.reservationId)
      if (known === 'released') throw problems.reservation_released()
      if (poor.has(body.userId)) throw problems.quota_exceeded()
      if (known === undefined) quota.set(body.reservationId, 'reserved')
      return { reservationId: body.reservationId, state: known ?? ('reserved' as const) }
    }),
    bind(CommitQuota, async ({ params }) => {
      const known = quota.get(params.reservationId)
      if (known === undefined) throw problems.reservation_not_found()
      if (known === 'released') throw problems.reservation_released()
      quota.set(params.reservationId, 'committed')
      return undefined
    }),
    bind(ReleaseQuota, async ({ params }) => {
      quota.set(params.reservationId, 'released')
      return undefined
    }),
  ]
}
