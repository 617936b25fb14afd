import type { EventHandler } from '@cloudphone/bus/consumer'
import { INBOX_MIGRATIONS } from '@cloudphone/bus/inbox'
import type { Caller, Role } from '@cloudphone/contracts/access'
import * as api from '@cloudphone/contracts/api/scheduler-api'
import type { EventDefinition, PayloadOf } from '@cloudphone/contracts/event'
import { DeviceStarted } from '@cloudphone/contracts/events/device-events'
import { type DeviceId, systemIds, type TenantId, type UserId } from '@cloudphone/contracts/id'
import type { BodyOf, ParamsOf, QueryOf, ResultOf, Route } from '@cloudphone/contracts/route'
import { type Database, openDatabase } from '@cloudphone/db/database'
import { holdExecutor } from '@cloudphone/db/executor'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { LEASE_MIGRATIONS, openLeases } from '@cloudphone/lease/open-leases'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { type Metrics, openMetrics } from '@cloudphone/observe/metrics'
import { OUTBOX_MIGRATIONS, openOutbox } from '@cloudphone/outbox/open-outbox'
import { staticRegistry } from '@cloudphone/registry/registry'
import { openAuditLog } from '@cloudphone/runtime/audit-log'
import { ClosingStack } from '@cloudphone/runtime/closing'
import { RUNTIME_MIGRATIONS } from '@cloudphone/runtime/idempotency'
import type { ServiceParts } from '@cloudphone/runtime/service'
import { openServiceClient } from '@cloudphone/runtime/service-client'
import { openServiceTokens } from '@cloudphone/runtime/tokens'
import { openSagas, SAGA_MIGRATIONS, type Sagas } from '@cloudphone/saga/engine'
import { createTestDatabase, type TestClock, testClock } from '@cloudphone/testing/postgres'
import { openQuotaDoor, type QuotaDoor } from '@cloudphone/testing/quota-door'
import type { AllocationRow, PhoneRow, SchedulerSchema } from '../db/schema.ts'
import { scheduler } from '../service.ts'
import { type DevicesDoor, openDevicesDoor } from './devices-door.ts'

const SCHEMA = 'scheduler'
export const tenantId = systemIds.next<'tenant'>()

/** The scheduler as the runtime would start it, over a database of its own and a devices service behind real HTTP. */
export interface Room extends AsyncDisposable {
  readonly database: Database<SchedulerSchema>
  readonly clock: TestClock
  readonly door: DevicesDoor
  readonly quota: QuotaDoor
  readonly sagas: Sagas
  readonly metrics: Metrics
  readonly parts: ServiceParts<SchedulerSchema>
  /** Calls a route as the HTTP binder would, after the contract has parsed the request. */
  call<R extends Route>(route: R, request: Partial<CallOf<R>> & { caller: Caller }): Promise<ResultOf<R>>
  /** Hands an event to its handler, in a transaction. */
  hear<Definition extends EventDefinition>(
    definition: Definition,
    version: number,
    payload: PayloadOf<Definition>,
  ): Promise<void>
  /** Makes a pooled phone that runs, on both sides. */
  addPhone(of?: TenantId): Promise<DeviceId>
  phone(id: DeviceId): Promise<PhoneRow>
  allocation(id: string): Promise<AllocationRow>
  /** Events in the outbox about an aggregate, in order, as `name {payload}`. */
  told(aggregateId: string): Promise<{ type: string; version: number; payload: Record<string, unknown> }[]>
}

interface CallOf<R extends Route> {
  params: ParamsOf<R>
  query: QueryOf<R>
  body: BodyOf<R>
  requestKey: string
}

export function callerOf(role: Role = 'member', userId: UserId = systemIds.next<'user'>()): Caller {
  return { userId, tenantId, role, sessionId: 's' }
}

/** What every device event of a pooled phone says. */
export function factsOf(
  deviceId: DeviceId,
  held: { allocationId?: string; fence?: number; of?: TenantId } = {},
) {
  return {
    ...{ deviceId, deviceName: 'pooled', tenantId: held.of ?? tenantId, userId: null },
    allocationId: (held.allocationId ?? null) as AllocationRow['id'] | null,
    fence: held.fence ?? 0,
  }
}

export async function openRoom(): Promise<Room> {
  const kernel = [APP_NOW_MIGRATIONS, OUTBOX_MIGRATIONS, INBOX_MIGRATIONS, LEASE_MIGRATIONS, SAGA_MIGRATIONS]
  const own = [RUNTIME_MIGRATIONS, new URL('../db/migrations/', import.meta.url)]
  const testDatabase = await createTestDatabase({ schema: SCHEMA, migrations: [...kernel, ...own] })
  const clock = testClock(testDatabase)
  const log = silentLog()
  const metrics = openMetrics(SCHEMA)
  const closing = new ClosingStack(log)
  closing.defer('test database', () => testDatabase.drop())
  const url = testDatabase.url
  const database = openDatabase<SchedulerSchema>({
    url,
    schema: SCHEMA,
    poolSize: 20,
    applicationName: SCHEMA,
    log,
  })
  closing.defer('database', () => database.close())
  const executor = holdExecutor({ url, applicationName: 'executor', log })
  closing.defer('executor', () => executor.close())
  const serviceTokens = openServiceTokens({
    secret: 'a secret of this test only, 32 chars',
    now: () => clock.now(),
  })
  const door = await openDevicesDoor(serviceTokens)
  closing.defer('door', async () => await door[Symbol.asyncDispose]())
  const users = await openQuotaDoor(serviceTokens)
  closing.add('users door', users)
  const registry = staticRegistry({ devices: [door.address], users: [users.address] })
  const client = openServiceClient({ self: 'scheduler', registry, serviceTokens })
  closing.defer('client', () => client.close())
  const outbox = openOutbox({ source: '/cloudphone/scheduler', ids: systemIds, wake: () => undefined })
  const leases = openLeases({ database, executor, log, metrics, clock })
  closing.defer('leases', () => leases.close())
  const audit = openAuditLog({ database, ids: systemIds, log, name: SCHEMA })
  let sagas: Sagas | undefined
  const context = {
    ...{
      name: SCHEMA,
      instance: 0,
      registry,
      client,
      serviceTokens,
      clock,
      ids: systemIds,
      log,
      metrics,
      closing,
    },
    ...{
      database,
      outbox,
      audit,
      leases,
      crash: crashPoints(undefined),
      settings: scheduler.settings.parse({}),
    },
    openSagas: (definitions: Parameters<typeof openSagas<SchedulerSchema>>[0]['definitions']) => {
      sagas = openSagas<SchedulerSchema>({
        database,
        executor,
        definitions,
        outbox,
        log,
        metrics,
        clock,
        sweepMs: 100,
      })
      return sagas
    },
  }
  const parts: ServiceParts<SchedulerSchema> = await (
    scheduler.start as (given: unknown) => Promise<ServiceParts<SchedulerSchema>>
  )(context)
  if (sagas === undefined) throw new Error('the scheduler opened no sagas')
  const opened: Sagas = sagas
  closing.defer('sagas', () => opened.stop())
  let ordinal = 0

  const room: Room = {
    ...{ database, clock, door, sagas: opened, metrics, parts, quota: users.quota },
    call: async (route, request) => {
      const binding = parts.routes.find((one) => one.route === (route as Route))
      if (binding === undefined) throw new Error(`no binding of ${route.name}`)
      ordinal += 1
      const given = { requestKey: `request-${ordinal}`, query: {}, body: {}, params: {}, ...request }
      return (await binding.handle(given as Parameters<typeof binding.handle>[0])) as ResultOf<typeof route>
    },
    hear: async (definition, version, payload) => {
      const handler = (parts.handlers ?? []).find((one: EventHandler<SchedulerSchema>) =>
        one.definitions.includes(definition),
      )
      if (handler === undefined) throw new Error(`nobody hears ${definition.name}`)
      await database.transaction((tx) =>
        handler.handle(tx, {
          ...{ id: systemIds.next<'event'>(), type: definition.name, subject: '', time: clock.now() },
          ...{ aggregateType: definition.aggregate, aggregateVersion: version, traceparent: undefined },
          data: definition.payload.parse(payload),
        }),
      )
    },
    addPhone: async (of = tenantId) => {
      const id = systemIds.next<'device'>()
      door.phones.set(id, { id, running: true, fence: 0, allocationId: null, userId: null, hygiene: 'clean' })
      await room.hear(DeviceStarted, 3, { ...factsOf(id, { of }), startedAt: clock.now().toISOString() })
      return id
    },
    phone: async (id) =>
      await database.kysely
        .selectFrom('device_mirror')
        .selectAll()
        .where('device_id', '=', id)
        .executeTakeFirstOrThrow(),
    allocation: async (id) =>
      await database.kysely
        .selectFrom('allocations')
        .selectAll()
        .where('id', '=', id as AllocationRow['id'])
        .executeTakeFirstOrThrow(),
    told: async (aggregateId) => {
      const { rows } = await database.pool.query(
        `select event_type as type, aggregate_version as version, payload from event_outbox
         where aggregate_id = $1 order by aggregate_version`,
        [aggregateId],
      )
      return rows as Awaited<ReturnType<Room['told']>>
    },
    [Symbol.asyncDispose]: () => closing.close(),
  }
  return room
}

/** Asks for a phone and carries the grant through; the allocation is as it stands then. */
export async function hold(room: Room, caller: Caller, durationMinutes = 60): Promise<AllocationRow> {
  const { allocation } = await room.call(api.CreateAllocation, { caller, body: { durationMinutes } })
  await room.sagas.drain()
  return await room.allocation(allocation.id)
}
