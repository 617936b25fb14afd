import { INBOX_MIGRATIONS } from '@cloudphone/bus/inbox'
import type { Caller, Role } from '@cloudphone/contracts/access'
import type { EventDefinition, PayloadOf } from '@cloudphone/contracts/event'
import { type DeviceId, systemIds, type TenantId, type UserId } from '@cloudphone/contracts/id'
import type { QueryOf, ResultOf, Route } from '@cloudphone/contracts/route'
import { type Database, openDatabase } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import type { ServiceParts } from '@cloudphone/runtime/service'
import { createTestDatabase } from '@cloudphone/testing/postgres'
import type { BillingSchema } from '../db/schema.ts'
import { billing } from '../service.ts'

const SCHEMA = 'billing'
export const tenantId: TenantId = systemIds.next<'tenant'>()

/** An event as a test hands it over; the same object twice is the same event delivered twice. */
export interface Told {
  readonly definition: EventDefinition
  readonly payload: unknown
  readonly id: string
}

/** The billing service over a database of its own. */
export interface Books extends AsyncDisposable {
  readonly database: Database<BillingSchema>
  readonly parts: ServiceParts<BillingSchema>
  /** Applies an event in a transaction, without an inbox: its effect alone must bear repetition. */
  hear(told: Told): Promise<void>
  call<R extends Route>(route: R, caller: Caller, query?: Partial<QueryOf<R>>): Promise<ResultOf<R>>
  /** What a phone's records say, in order of time. */
  bill(deviceId: DeviceId): Promise<Line[]>
}

export interface Line {
  readonly start: string
  readonly end: string | null
  readonly seconds: number | null
  readonly costMicro: number | null
  readonly closedBy: string | null
}

export function told<Definition extends EventDefinition>(
  definition: Definition,
  payload: PayloadOf<Definition>,
): Told {
  return { definition, payload, id: systemIds.next<'event'>() }
}

export function callerOf(role: Role = 'member', userId: UserId = systemIds.next<'user'>()): Caller {
  return { userId, tenantId, role, sessionId: 's' }
}

export async function openBooks(settings: Record<string, string> = {}): Promise<Books> {
  const testDatabase = await createTestDatabase({
    schema: SCHEMA,
    migrations: [APP_NOW_MIGRATIONS, INBOX_MIGRATIONS, new URL('../db/migrations/', import.meta.url)],
  })
  const log = silentLog()
  const database = openDatabase<BillingSchema>({
    ...{ url: testDatabase.url, schema: SCHEMA, poolSize: 8, applicationName: SCHEMA, log },
  })
  const context = { settings: billing.settings.parse(settings), database, log, metrics: openMetrics(SCHEMA) }
  const start = billing.start as (given: unknown) => Promise<ServiceParts<BillingSchema>>
  const parts = await start(context)
  return {
    ...{ database, parts },
    hear: async ({ definition, payload, id }) => {
      const handler = (parts.handlers ?? []).find((one) => one.definitions.includes(definition))
      if (handler === undefined) throw new Error(`nobody hears ${definition.name}`)
      await database.transaction((tx) =>
        handler.handle(tx, {
          ...{
            id,
            type: definition.name,
            subject: '',
            time: new Date(0),
            aggregateType: definition.aggregate,
          },
          ...{ aggregateVersion: 1, traceparent: undefined, data: definition.payload.parse(payload) },
        }),
      )
    },
    call: async (route, caller, query = {}) => {
      const binding = parts.routes.find((one) => one.route === (route as Route))
      if (binding === undefined) throw new Error(`no binding of ${route.name}`)
      const given = { caller, query: route.query.parse(query), params: {}, body: {} }
      return (await binding.handle(given as Parameters<typeof binding.handle>[0])) as ResultOf<typeof route>
    },
    bill: async (deviceId) => {
      const rows = await database.kysely
        .selectFrom('usage_records')
        .selectAll()
        .where('device_id', '=', deviceId)
        .orderBy('start_time')
        .orderBy('end_time')
        .execute()
      return rows.map((row) => ({
        start: row.start_time.toISOString(),
        end: row.end_time?.toISOString() ?? null,
        seconds: row.duration,
        costMicro: row.cost_micro,
        closedBy: row.closed_by,
      }))
    },
    [Symbol.asyncDispose]: async () => {
      await database.close()
      await testDatabase.drop()
    },
  }
}
