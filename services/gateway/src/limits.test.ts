import { systemIds } from '@cloudphone/contracts/id'
import { openTown, type Town } from '@cloudphone/testing/town'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { echo, type GatewayTown, openGatewayTown } from './testing/gateway-town.ts'

let whole: Town
let town: GatewayTown
beforeAll(async () => {
  whole = await openTown()
  // Minutes, so that no window ends while the test runs.
  town = await openGatewayTown(whole, { GATEWAY_LIMIT_PER_MINUTE: '5' })
  await town.rawNeighbour('devices', echo)
  await town.openApiKeys()
})
afterAll(async () => {
  await town?.close()
  await whole?.close()
})

async function get(path: string, headers: Record<string, string> = {}) {
  const response = await fetch(`${town.url}${path}`, { headers })
  return { status: response.status, headers: response.headers, body: await response.json() }
}

test('a user’s sixth request of a minute is refused with the time to wait; another user is not affected', async () => {
  const userId = systemIds.next<'user'>()
  // Two tokens of one user count together.
  const tokens = [town.token({ userId }), town.token({ userId })]
  for (let turn = 0; turn < 5; turn += 1) {
    const { status, headers } = await get('/api/devices', { authorization: `Bearer ${tokens[turn % 2]}` })
    expect(status).toBe(200)
    expect(headers.get('ratelimit-limit')).toBe('5')
    expect(headers.get('ratelimit-remaining')).toBe(String(4 - turn))
  }
  const refused = await get('/api/devices', { authorization: `Bearer ${tokens[0]}` })
  expect(refused).toMatchObject({
    status: 429,
    body: { code: 'rate_limited', success: false, detail: expect.stringMatching(/in \d+ s/) },
  })
  const retryAfter = Number(refused.headers.get('retry-after'))
  expect(retryAfter).toBeGreaterThan(0)
  expect(retryAfter).toBeLessThanOrEqual(60)
  const other = await get('/api/devices', { authorization: `Bearer ${town.token()}` })
  expect(other.status).toBe(200)
})

test('who is not known counts by address, also with wrong tokens and keys; probes and pages stay open', async () => {
  const wrong = [{}, { authorization: 'Bearer nonsense' }, { 'x-api-key': 'cpk_nonsense' }] as const
  const statuses: number[] = []
  for (let turn = 0; turn < 6; turn += 1) {
    statuses.push((await get('/api/devices', { ...wrong[turn % 3] })).status)
  }
  expect(statuses).toEqual([401, 401, 401, 401, 401, 429])
  expect((await get('/health/ready')).status).toBe(200)
  expect((await get('/api/openapi.json')).status).toBe(200)
  // A known caller from the same address still passes.
  expect((await get('/api/devices', { authorization: `Bearer ${town.token()}` })).status).toBe(200)
})
