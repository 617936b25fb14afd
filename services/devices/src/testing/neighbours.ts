/* The services that devices talks to, as far as a test needs them: real HTTP servers that speak the contracts, over plain
 * maps that a test can look into. */
import type { Role } from '@cloudphone/contracts/access'
import { GetApk } from '@cloudphone/contracts/api/apps-api'
import { systemIds, type TenantId, type UserId } from '@cloudphone/contracts/id'
import { bind } from '@cloudphone/runtime/http-server'
import { defineProblems } from '@cloudphone/runtime/problem'
import { type QuotaDoor, quotaDoor } from '@cloudphone/testing/quota-door'
import { callerOf } from '@cloudphone/testing/token-mint'
import type { Town } from '@cloudphone/testing/town'

const problems = defineProblems({
  app_not_found: [404, 'There is no such app.'],
})

export interface Person {
  readonly userId: UserId
  readonly tenantId: TenantId
  readonly token: string
}

export interface Neighbours {
  /** Reservations by id: what the users service would count. */
  readonly quota: QuotaDoor['reservations']
  /** Users without any quota. */
  readonly poor: QuotaDoor['poor']
  readonly door: QuotaDoor
  readonly apks: Map<string, Buffer>
  person(role: Role, tenantId?: TenantId): Person
}

/** Puts a users and an apps service into the town. */
export async function startNeighbours(town: Town): Promise<Neighbours> {
  const door = quotaDoor()
  const apks: Neighbours['apks'] = new Map()
  await town.neighbour('users', door.bindings)
  await town.neighbour('apps', [
    bind(GetApk, async ({ params }) => {
      const body = apks.get(params.appId)
      if (body === undefined) throw problems.app_not_found()
      return { body, sizeBytes: body.length }
    }),
  ])
  return {
    ...{ door, apks, quota: door.reservations, poor: door.poor },
    person: (role, tenantId = systemIds.next<'tenant'>()) => {
      const caller = callerOf({ role, tenantId })
      return { userId: caller.userId, tenantId, token: town.tokenFor(caller) }
    },
  }
}
