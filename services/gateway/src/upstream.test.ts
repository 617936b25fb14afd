import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import { openTown, type Town } from '@cloudphone/testing/town'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { echo, type GatewayTown, openGatewayTown } from './testing/gateway-town.ts'

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

async function ask(method: string, headers: Record<string, string> = {}) {
  const response = await fetch(`${town.url}/api/devices`, {
    method,
    headers: { authorization: `Bearer ${town.token()}`, ...headers },
    ...(method === 'POST' && { body: 'x' }),
  })
  return { status: response.status, headers: response.headers, body: JSON.parse(await response.text()) }
}

/** A line of the gateway's metrics. */
async function metric(name: string): Promise<string | undefined> {
  const text = await (await fetch(`${town.url}/metrics`)).text()
  return text
    .split('\n')
    .find((line) => line.startsWith(`${name}{`))
    ?.split(' ')
    .at(-1)
}

/** An instance of the devices service as a process of its own, so that it can die as one does. */
async function instance(): Promise<{ child: ChildProcess; address: string }> {
  const program = `const { createServer } = require('node:http')
    const server = createServer((request, response) => setImmediate(() => response.end('{"pid":' + process.pid + '}')))
    server.listen(0, '127.0.0.1', () => console.log(server.address().port))
    process.stdin.resume().on('end', () => process.exit())`
  const child = spawn(process.execPath, ['-e', program], { stdio: ['pipe', 'pipe', 'inherit'] })
  const [port] = await once(child.stdout, 'data')
  return { child, address: `http://127.0.0.1:${Number(String(port))}` }
}

test('an instance that is killed under load costs no GET, and is out of rotation with the first that noticed', async () => {
  const [first, second] = await Promise.all([instance(), instance()])
  await town.register('devices', first.address)
  await town.register('devices', second.address)
  const statuses = new Set<number>()
  const servedBy: number[] = []
  let isKilled = false
  let left = 200
  const line = async (): Promise<void> => {
    while (left > 0) {
      if (isKilled) left -= 1
      const { status, body } = await ask('GET')
      statuses.add(status)
      servedBy.push(body.pid)
      if (servedBy.length === 50) {
        first.child.kill('SIGKILL')
        isKilled = true
      }
    }
  }
  await Promise.all(Array.from({ length: 8 }, line))
  expect([...statuses]).toEqual([200])
  expect(servedBy.slice(0, 50)).toContain(first.child.pid)
  expect(servedBy.at(-1)).toBe(second.child.pid)
  expect(Number(await metric('gateway_upstream_ejections_total'))).toBeGreaterThanOrEqual(1)
  expect(await metric('gateway_upstream_ejected')).toBe('1')
  expect(await metric('gateway_upstream_pending')).toBe('0')
  second.child.kill()
})

test('who has more to do gets less', async () => {
  const held = Promise.withResolvers<void>()
  const served = [0, 0]
  await town.rawNeighbour('devices', (_request, response) => {
    served[0]! += 1
    void held.promise.then(() => response.end('{}'))
  })
  await town.rawNeighbour('devices', (_request, response) => {
    served[1]! += 1
    response.end('{}')
  })
  const slow = ask('GET')
  for (let turn = 0; turn < 6; turn += 1) if (served[0] === 0) await ask('GET')
  for (let turn = 0; turn < 6; turn += 1) await ask('GET')
  expect(served[0]).toBe(1)
  held.resolve()
  await slow
})

test('an instance that answers 503 is passed over for a GET; a POST hears it', async () => {
  let refused = 0
  await town.rawNeighbour('devices', (_request, response) => {
    refused += 1
    response.writeHead(503, { 'content-type': 'application/problem+json' })
    response.end('{"code":"draining"}')
  })
  await town.rawNeighbour('devices', echo)
  for (let turn = 0; turn < 4; turn += 1) expect((await ask('GET')).status).toBe(200)
  expect(refused).toBe(4)
  // The fifth in a row puts it out of rotation.
  const statuses = [(await ask('POST')).status, (await ask('POST')).status, (await ask('POST')).status]
  expect(statuses).toEqual([503, 200, 200])
})

test('with nobody there callers are told at once when to come again, and served as soon as somebody is', async () => {
  const dead = await town.rawNeighbour('devices', echo)
  await new Promise((resolve) => dead.close(resolve))
  for (let turn = 0; turn < 5; turn += 1) {
    const { status, body, headers } = await ask('GET')
    expect([status, body.code, headers.get('retry-after')]).toEqual([503, 'service_unavailable', null])
  }
  const refused = await ask('GET')
  expect(refused).toMatchObject({
    status: 503,
    body: { code: 'service_unavailable', service: 'devices', success: false },
  })
  expect(refused.headers.get('retry-after')).toBe('1')
  expect(await metric('gateway_breaker_state')).toBe('2')
  await town.rawNeighbour('devices', echo)
  expect((await ask('GET')).status).toBe(200)
  expect((await ask('POST')).status).toBe(200)
  expect(await metric('gateway_breaker_state')).toBe('0')
})

test('the time that is left goes on to the service; an answer that is later is a 504', async () => {
  const seen: (string | undefined)[] = []
  await town.rawNeighbour('devices', (request, response) => {
    seen.push(String(request.headers['x-deadline-ms']))
    if (request.headers['x-deadline-ms'] !== '20') response.end('{}')
  })
  await ask('GET')
  await ask('GET', { 'x-deadline-ms': '99000' })
  const late = await ask('GET', { 'x-deadline-ms': '20' })
  // However often somebody has no patience, the instance is not to blame.
  await Promise.all(Array.from({ length: 5 }, () => ask('GET', { 'x-deadline-ms': '20' })))
  expect((await ask('GET')).status).toBe(200)
  expect(late).toMatchObject({
    status: 504,
    body: { code: 'deadline_exceeded', waitedMs: 20, success: false },
  })
  expect(seen.slice(0, 3)).toEqual(['30000', '30000', '20'])
})

test('a WebSocket goes to an instance that is there', async () => {
  const dead = await town.rawNeighbour('notifications', echo)
  await new Promise((resolve) => dead.close(resolve))
  const server = await town.rawNeighbour('notifications', echo)
  server.on('upgrade', (_request, socket) => {
    socket.end('HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n')
  })
  for (let turn = 0; turn < 3; turn += 1) {
    const opening = httpRequest(`${town.url}/socket.io/?EIO=4&transport=websocket`, {
      headers: { connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-key': 'k' },
    }).end()
    const [response, socket] = await once(opening, 'upgrade')
    expect(response.statusCode).toBe(101)
    socket.destroy()
  }
})
