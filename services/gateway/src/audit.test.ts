import { type AuditEntry, auditRoutes } from '@cloudphone/contracts/api/audit-api'
import { systemIds } from '@cloudphone/contracts/id'
import { type ServiceName, services } from '@cloudphone/contracts/services'
import { bind } from '@cloudphone/runtime/http-server'
import { openTown, type Town } from '@cloudphone/testing/town'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { statefulServices } from './domain/fleet.ts'
import { type GatewayTown, openGatewayTown } from './testing/gateway-town.ts'

let whole: Town
let town: GatewayTown
beforeAll(async () => {
  whole = await openTown()
})
afterAll(() => whole?.close())
beforeEach(async () => {
  town = await openGatewayTown(whole)
})
afterEach(() => town.close())

const entry = (service: ServiceName, more: Partial<AuditEntry> = {}): AuditEntry => ({
  ...{
    id: systemIds.next<'audit'>(),
    service,
    at: new Date(0).toISOString(),
    actor: 'ann',
    verb: 'thing.set',
  },
  ...{ target: 'thing', tenantId: null, reason: null, outcome: 'done', detail: null, before: null },
  ...{ after: { text: 'x'.repeat(2_000) }, requestId: null, sessionId: null, address: null },
  ...more,
})

/** Each service answers with what `page` makes; gives how often they were asked in all. */
async function logs(page: (service: ServiceName) => { items: AuditEntry[]; nextCursor: string | null }) {
  const asked = { times: 0, queries: [] as object[] }
  for (const service of statefulServices) {
    const log = bind(auditRoutes(service).listAudit, async ({ query }) => {
      asked.times += 1
      asked.queries.push(query)
      return page(service)
    })
    await town.neighbour(service, [log])
  }
  return asked
}

const request = (path: string, who: Parameters<GatewayTown['token']>[0] = {}) =>
  fetch(`${town.url}${path}`, {
    headers: { authorization: `Bearer ${town.token({ role: 'admin', ...who })}` },
  })

test('an export without end takes no more memory than its reader takes up, and ends with the reader', async () => {
  const asked = await logs((service) => ({
    items: service === 'users' ? Array.from({ length: 200 }, () => entry(service)) : [],
    nextCursor: service === 'users' ? 'on' : null,
  }))
  const response = await request('/api/audit/export', { isPlatform: true })
  const reader = response.body!.getReader()
  let bytes = 0
  while (bytes < 10_000_000) bytes += (await reader.read()).value!.byteLength
  // A page is 0.4 MB: what is read ahead stands in the buffers of two sockets and a stream.
  const pages = asked.times / statefulServices.length
  expect(pages).toBeGreaterThanOrEqual(10_000_000 / 500_000 - 1)
  expect(pages).toBeLessThan(60)
  await reader.cancel()
})

test('a service that is silent is told at once, and in the middle breaks the stream off', async () => {
  await logs((service) => ({ items: [entry(service)], nextCursor: null }))
  let pages = 0
  await town.neighbour('users', [
    bind(auditRoutes('users').listAudit, async () => {
      pages += 1
      if (pages > 1) throw new Error('gone')
      return { items: [entry('users')], nextCursor: 'on' }
    }),
  ])
  const broken = await request('/api/audit/export', { isPlatform: true })
  expect(broken.status).toBe(200)
  await expect(broken.text()).rejects.toThrow()
  const refused = await request('/api/audit/export', { isPlatform: true })
  expect(refused.status).toBe(500)
})

test('only a caller of the platform’s tenant may ask for all, or for another’s', async () => {
  const tenantId = systemIds.next<'tenant'>()
  const asked = await logs(() => ({ items: [], nextCursor: null }))
  await request('/api/audit', { tenantId })
  expect(new Set(asked.queries.map((query) => JSON.stringify(query)))).toEqual(
    new Set([JSON.stringify({ limit: 50, tenantId })]),
  )
  const other = await request(`/api/audit?tenantId=${systemIds.next()}`, { tenantId })
  expect(other.status).toBe(403)
  asked.queries.length = 0
  await request('/api/audit', { tenantId, isPlatform: true })
  expect(asked.queries[0]).toEqual({ limit: 50 })
})

test('a cell of CSV is no formula, and holds whatever was written', async () => {
  await logs((service) => ({
    items: service === 'apps' ? [entry(service, { reason: '=1+1', detail: 'a "b", c\nd', after: null })] : [],
    nextCursor: null,
  }))
  const text = await (await request('/api/audit/export?format=csv', { isPlatform: true })).text()
  expect(text).toContain(`,'=1+1,"a ""b"", c\nd",`)
  expect(text).toMatch(/^at,[\w,]+\r\n/)
  expect(Object.keys(services).length).toBeGreaterThan(statefulServices.length)
})
