import { operatorRoutes } from '@cloudphone/contracts/api/operator-api'
import {
  type Claim,
  type InvariantReport,
  platformRoutes,
  type SagaView,
} from '@cloudphone/contracts/api/platform-api'
import { systemIds } from '@cloudphone/contracts/id'
import type { ServiceName } from '@cloudphone/contracts/services'
import { decodeCursor, decodeCursorOf, pageOf } from '@cloudphone/runtime/cursor'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import { openTown, type Town } from '@cloudphone/testing/town'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { problems } from './errors.ts'
import { type GatewayTown, openGatewayTown } from './testing/gateway-town.ts'

let whole: Town
let town: GatewayTown
let admin: string
beforeAll(async () => {
  whole = await openTown()
})
afterAll(() => whole?.close())
beforeEach(async () => {
  town = await openGatewayTown(whole)
  admin = town.token({ role: 'admin', isPlatform: true })
})
afterEach(() => town.close())

async function get(path: string, token = admin) {
  const response = await fetch(`${town.url}${path}`, { headers: { authorization: `Bearer ${token}` } })
  return { status: response.status, body: JSON.parse(await response.text()) }
}

function saga(type: string, minute: number, userId: string | null = null): SagaView {
  const at = new Date(Date.UTC(2026, 0, 1, 0, minute)).toISOString()
  return {
    sagaId: `${type}-${systemIds.next<'saga'>()}`,
    ...{
      type,
      userId,
      definitionVersion: 1,
      status: 'COMPLETED',
      currentStep: 'LAST',
      stepIndex: 0,
      standsAt: null,
      retryCount: 0,
    },
    ...{ errorMessage: null, subject: null, steps: [], timeline: [] },
    ...{ createdAt: at, updatedAt: at, endedAt: at, deadlineAt: at },
  }
}

/** Keeps sagas as the runtime does: the newest first, a cursor of time and id. */
function sagasBinding(service: ServiceName, kept: readonly SagaView[]): Binding {
  return bind(platformRoutes(service).listSagas, async ({ query }) => {
    const [, time, id] = decodeCursorOf(/^(\d+)_(.+)$/, query.cursor) ?? []
    const rows = kept
      .filter(({ userId }) => query.userId === undefined || query.userId === userId)
      .toSorted((a, b) => Date.parse(b.createdAt) - Date.parse(a.createdAt) || (a.sagaId < b.sagaId ? 1 : -1))
      .filter(({ createdAt, sagaId }) => {
        if (time === undefined || id === undefined) return true
        const difference = Date.parse(createdAt) - Number(time)
        return difference < 0 || (difference === 0 && sagaId < id)
      })
    return pageOf(
      rows.slice(0, query.limit + 1),
      query.limit,
      (row) => row,
      (row) => `${Date.parse(row.createdAt)}_${row.sagaId}`,
    )
  })
}

test('sagas of all services are one list, page by page, without gap or repetition', async () => {
  const mine = systemIds.next<'user'>()
  const devices = Array.from({ length: 9 }, (_, index) =>
    saga('device_creation', index * 2, index < 3 ? mine : null),
  )
  // The same minutes on both sides: within one moment the id decides.
  const scheduler = Array.from({ length: 6 }, (_, index) => saga('allocation_grant', index * 3))
  await town.neighbour('users', [])
  await town.neighbour('devices', [sagasBinding('devices', devices)])
  await town.neighbour('scheduler', [sagasBinding('scheduler', scheduler)])
  const seen: SagaView[] = []
  let cursor: string | null = ''
  for (let page = 0; cursor !== null; page += 1) {
    const { body } = await get(`/api/sagas?limit=4${cursor === '' ? '' : `&cursor=${cursor}`}`)
    expect(page).toBeLessThan(5)
    seen.push(...body.data)
    cursor = body.page.nextCursor
  }
  expect(seen.map(({ sagaId }) => sagaId).sort()).toEqual(
    [...devices, ...scheduler].map(({ sagaId }) => sagaId).sort(),
  )
  const times = seen.map(({ createdAt }) => createdAt)
  expect(times).toEqual(times.toSorted().reverse())
  const member = town.token({ userId: mine })
  const own = await get('/api/sagas', member)
  expect(own.body.data.map((one: SagaView) => one.userId)).toEqual([mine, mine, mine])
  expect(await get(`/api/sagas?userId=${systemIds.next<'user'>()}`, member)).toMatchObject({
    status: 403,
    body: { code: 'forbidden' },
  })
})

const named: readonly ServiceName[] = ['users', 'devices', 'apps', 'scheduler', 'billing', 'notifications']

function report(invariant: number, holds = true): InvariantReport {
  return { invariant, name: `rule ${invariant}`, figure: '1 thing', holds, culprits: [] }
}

/** Six services that make statements; what each claims may change from one question to the next. */
async function statements(
  claims: Partial<Record<ServiceName, (asked: number) => Claim[]>>,
): Promise<Map<string, number>> {
  const asked = new Map<string, number>()
  for (const [index, service] of named.entries()) {
    const invariants = bind(platformRoutes(service).invariants, async () => {
      asked.set(service, (asked.get(service) ?? 0) + 1)
      const own = service === 'users' ? [3, 5, 6, 7, 8] : [index]
      return {
        reports: own.filter((number) => number > 0).map((number) => report(number)),
        claims: claims[service]?.(asked.get(service) ?? 0) ?? [],
      }
    })
    await town.neighbour(service, [invariants])
  }
  return asked
}

const quota = (id: string, detail: string): Claim => ({ kind: 'quota', id, detail })
const held = (id: string, detail: string): Claim => ({ kind: 'allocation', id, detail })

test('the doctor finds nothing where everything agrees, after one look', async () => {
  const asked = await statements({
    users: () => [quota('a', 'committed'), quota('b', 'reserved')],
    devices: () => [quota('a', 'RUNNING'), quota('b', 'CREATING'), held('a', 'one')],
    scheduler: () => [held('a', 'one')],
  })
  const { status, body } = await get('/api/doctor')
  expect(status).toBe(200)
  expect(body.data.reports.filter(({ holds }: InvariantReport) => !holds)).toEqual([])
  expect(body.data.healthy).toBe(true)
  expect(new Set(body.data.reports.map(({ invariant }: InvariantReport) => invariant))).toEqual(
    new Set([1, 2, 3, 4, 5, 6, 7, 8, 9]),
  )
  expect([...asked.values()]).toEqual([1, 1, 1, 1, 1, 1])
})

test('a difference that passes is no alarm; one that stays is, with its culprit', async () => {
  await statements({
    users: () => [quota('gone', 'committed')],
    devices: (asked) => (asked === 1 ? [] : [held('late', 'one')]),
    scheduler: () => [held('late', 'one')],
  })
  const { body } = await get('/api/doctor')
  expect(body.data.healthy).toBe(false)
  expect(body.data.reports.filter(({ holds }: InvariantReport) => !holds)).toEqual([
    {
      invariant: 3,
      name: 'quota reserved = devices that hold it',
      figure: '1 reservations, 0 devices',
      holds: false,
      culprits: [{ id: 'gone', detail: 'quota is committed for a device that does not exist' }],
    },
  ])
})

test('a service that does not answer is a finding, and so is an invariant that nobody judges', async () => {
  await town.neighbour('users', [
    bind(platformRoutes('users').invariants, async () => ({ reports: [report(3)], claims: [] })),
  ])
  const { status, body } = await get('/api/doctor')
  expect(status).toBe(200)
  expect(body.data.healthy).toBe(false)
  const silent = body.data.reports.find(({ invariant }: InvariantReport) => invariant === 9)
  expect(silent).toMatchObject({ holds: false, figure: '1 of 6 services answer' })
  expect(silent.culprits.map(({ id }: { id: string }) => id)).toEqual(named.slice(1))
  expect(body.data.reports.find(({ invariant }: InvariantReport) => invariant === 7)).toMatchObject({
    holds: false,
    figure: 'no service reports on it',
  })
})

test('outboxes and dead letters of all services, for who may inspect the platform', async () => {
  const ids = Array.from({ length: 12 }, () => systemIds.next<'dead_letter'>())
  for (const [index, service] of named.entries()) {
    const own = ids.filter((_id, place) => place % named.length === index)
    await town.neighbour(service, [
      bind(platformRoutes(service).outbox, async () => ({
        pending: index,
        failed: 0,
        published: 10,
        lagSeconds: 0.5,
      })),
      bind(operatorRoutes(service).listDeadLetters, async ({ query }) => {
        const after = decodeCursor(query.cursor)
        const rows = own.filter((id) => after === undefined || id > after)
        const letter = (id: string) => ({
          ...{ id, queue: `${service}.q`, eventId: id, eventType: 'device.failed', error: 'no', attempts: 4 },
          diedAt: '2026-01-01T00:00:00.000Z',
        })
        return pageOf(rows.slice(0, query.limit + 1), query.limit, letter, (id) => id)
      }),
    ])
  }
  const outboxes = await get('/api/outbox')
  expect(
    outboxes.body.data.map((one: { service: string; pending: number }) => [one.service, one.pending]),
  ).toEqual(named.map((service, index) => [service, index]))
  const first = await get('/api/dead-letters?limit=7')
  const second = await get(`/api/dead-letters?limit=7&cursor=${first.body.page.nextCursor}`)
  const seen = [...first.body.data, ...second.body.data].map(({ id }: { id: string }) => id)
  expect(seen).toEqual(ids)
  expect(second.body.page.nextCursor).toBeNull()
  expect((await get('/api/outbox', town.token())).status).toBe(403)
})

test('a dead letter is asked of all and answered by its owner; while one is silent nobody says that there is none', async () => {
  const [mine, nobodys] = [systemIds.next<'dead_letter'>(), systemIds.next<'dead_letter'>()]
  const replayOf = (service: ServiceName): Binding =>
    bind(
      operatorRoutes(service).replayDeadLetter,
      async ({ params: { deadLetterId }, body: { actor, reason } }) => {
        if (service !== 'billing' || deadLetterId !== mine)
          throw problems.dead_letter_not_found({ deadLetterId })
        expect({ ...actor, reason }).toEqual({ userId, tenantId: expect.any(String), reason: 'mended' })
        const replayedAt = '2026-01-01T00:00:00.000Z'
        return { outcome: 'replayed' as const, service, queue: 'billing.q', eventId: mine, replayedAt }
      },
    )
  const userId = systemIds.next<'user'>()
  const replay = async (id: string) => {
    const response = await fetch(`${town.url}/api/dead-letters/${id}/replay`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${town.token({ role: 'operator', userId, isPlatform: true })}`,
        'content-type': 'application/json',
      },
      body: JSON.stringify({ reason: 'mended' }),
    })
    return { status: response.status, body: JSON.parse(await response.text()) }
  }
  for (const service of named.slice(0, -1)) await town.neighbour(service, [replayOf(service)])
  expect(await replay(mine)).toMatchObject({
    status: 200,
    body: { data: { outcome: 'replayed', service: 'billing' } },
  })
  expect(await replay(nobodys)).toMatchObject({ status: 503, body: { code: 'service_unavailable' } })
  await town.neighbour('notifications', [replayOf('notifications')])
  expect(await replay(nobodys)).toMatchObject({ status: 404, body: { code: 'dead_letter_not_found' } })
})
