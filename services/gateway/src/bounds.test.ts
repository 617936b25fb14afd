import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { openTown, type Town } from '@cloudphone/testing/town'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { echo, type GatewayTown, openGatewayTown } from './testing/gateway-town.ts'

let whole: Town
let town: GatewayTown
beforeAll(async () => {
  whole = await openTown()
  town = await openGatewayTown(whole, {
    GATEWAY_BODY_WINDOW_MS: '100',
    GATEWAY_CONNECTIONS_PER_ADDRESS: '20',
    GATEWAY_CORS_ORIGINS: 'https://console.example.com',
  })
  await town.rawNeighbour('devices', echo)
  await town.rawNeighbour('apps', echo)
})
afterAll(async () => {
  await town?.close()
  await whole?.close()
})

function open(): Socket {
  const { hostname, port } = new URL(town.url)
  return connect(Number(port), hostname)
}

/** What a connection answers to these lines, until the gateway closes it. */
async function raw(...lines: string[]) {
  const socket = open()
  socket.write(lines.join('\r\n'))
  return read(socket)
}

async function read(socket: Socket) {
  const answer = await text(socket)
  const [head = '', body = ''] = answer.split('\r\n\r\n')
  return { status: Number(head.split(' ')[1]), head, body: body === '' ? {} : JSON.parse(body) }
}

const bearer = () => `authorization: Bearer ${town.token()}`

test('a head that is too large, has too many headers or too long a URL is a problem that says so', async () => {
  const many = Array.from({ length: 120 }, (_, index) => `x-${index}: 1`)
  expect(
    await raw('GET /api/devices HTTP/1.1', 'host: x', 'connection: close', ...many, '', ''),
  ).toMatchObject({
    ...{ status: 431, body: { code: 'headers_too_large', limitCount: 100, success: false } },
  })
  expect(
    await raw('GET /api/devices HTTP/1.1', 'host: x', `x-a: ${'y'.repeat(20_000)}`, '', ''),
  ).toMatchObject({
    ...{ status: 431, body: { code: 'headers_too_large', limitBytes: 16_384 } },
  })
  const long = (length: number) => `GET /api/devices?x=${'y'.repeat(length)} HTTP/1.1`
  for (const length of [9_000, 20_000]) {
    expect(await raw(long(length), 'host: x', 'connection: close', '', '')).toMatchObject({
      ...{ status: 414, body: { code: 'url_too_long', limitBytes: 8_192 } },
    })
  }
})

test.each([
  [
    'two lengths',
    ['POST /api/devices HTTP/1.1', 'host: x', 'content-length: 1', 'content-length: 2', '', 'x'],
  ],
  [
    'length and chunks',
    ['POST /api/devices HTTP/1.1', 'host: x', 'content-length: 1', 'transfer-encoding: chunked', '', ''],
  ],
  ['no host', ['GET /api/devices HTTP/1.1', '', '']],
  ['no HTTP', ['hello', '', '']],
])('%s is a refusal with a reason, and the end of the connection', async (_what, lines) => {
  const { status, head } = await raw(...lines)
  expect(status).toBe(400)
  expect(head.toLowerCase()).toContain('connection: close')
})

test('a body that is announced too large is refused before it comes, one in chunks when it has', async () => {
  const announced = await raw(
    ...['POST /api/devices HTTP/1.1', 'host: x', bearer(), 'content-type: application/json'],
    ...['connection: close', 'content-length: 1048577', '', ''],
  )
  expect(announced).toMatchObject({ status: 413, body: { code: 'body_too_large', limitBytes: 1_048_576 } })
  const socket = open()
  socket.on('error', () => socket.destroy())
  const head = ['POST /api/devices HTTP/1.1', 'host: x', bearer(), 'content-type: application/json']
  socket.write([...head, 'transfer-encoding: chunked', '', ''].join('\r\n'))
  const piece = `10000\r\n${'z'.repeat(65_536)}\r\n`
  for (let count = 0; count < 17; count += 1) socket.write(piece)
  const [answer] = await once(socket, 'data')
  expect(String(answer)).toMatch(/^HTTP\/1\.1 413 /)
  socket.destroy()
  const upload = await raw(
    ...['POST /api/apps HTTP/1.1', 'host: x', bearer(), 'content-type: multipart/form-data; boundary=b'],
    ...['connection: close', `content-length: ${3 * 1024 ** 3}`, '', ''],
  )
  expect(upload).toMatchObject({ status: 413, body: { code: 'body_too_large' } })
})

test.each([
  ['short', 'POST /api/devices', 'content-length: 100'],
  ['long', 'POST /api/devices', 'content-length: 100000'],
  ['chunked', 'POST /api/apps', 'transfer-encoding: chunked'],
])('who dribbles a %s body is cut off', async (_kind, line, length) => {
  const socket = open()
  socket.write(
    [`${line} HTTP/1.1`, 'host: x', bearer(), 'content-type: application/json', length, '', ''].join('\r\n'),
  )
  expect(await read(socket)).toMatchObject({ status: 408, body: { code: 'body_too_slow', success: false } })
})

test('an address gets so many connections and no more; one that ends makes room', async () => {
  const held = Array.from({ length: 20 }, open)
  await Promise.all(held.map((socket) => once(socket, 'connect')))
  // Connections of earlier tests may still be among the 20.
  const refused = await read(open())
  expect(refused).toMatchObject({ status: 429, body: { code: 'too_many_connections', limit: 20 } })
  for (const socket of held) socket.destroy()
  let status = 0
  while (status !== 200) {
    const answer = await fetch(`${town.url}/health/live`).catch(() => undefined)
    status = answer?.status ?? 0
  }
})

test('a page of a listed origin may ask, one of another gets no word that lets it', async () => {
  const preflight = (origin: string) =>
    fetch(`${town.url}/api/devices`, {
      method: 'OPTIONS',
      headers: {
        origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization',
      },
    })
  const good = await preflight('https://console.example.com')
  expect(good.status).toBe(204)
  expect(good.headers.get('access-control-allow-origin')).toBe('https://console.example.com')
  expect(good.headers.get('access-control-allow-credentials')).toBe('true')
  expect(good.headers.get('access-control-allow-methods')).toContain('DELETE')
  expect(good.headers.get('vary')).toBe('Origin')
  const bad = await preflight('https://evil.example')
  expect(bad.status).toBe(404)
  expect(bad.headers.get('access-control-allow-origin')).toBeNull()
  const headers = { authorization: `Bearer ${town.token()}`, origin: 'https://console.example.com' }
  const answer = await fetch(`${town.url}/api/devices`, { headers })
  expect(answer.status).toBe(200)
  expect(answer.headers.get('access-control-allow-origin')).toBe('https://console.example.com')
  expect(answer.headers.get('access-control-expose-headers')).toContain('ratelimit-remaining')
  // A refusal can be read by the page too.
  const refusal = await fetch(`${town.url}/api/devices`, { headers: { origin: headers.origin } })
  expect([refusal.status, refusal.headers.get('access-control-allow-origin')]).toEqual([401, headers.origin])
})

test('every answer says how browsers must treat it; only behind TLS that they must keep to it', async () => {
  const plain = await fetch(`${town.url}/api/devices`)
  expect(Object.fromEntries(plain.headers)).toMatchObject({
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    'referrer-policy': 'no-referrer',
    'cache-control': 'no-store',
    'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  })
  expect(plain.headers.get('strict-transport-security')).toBeNull()
})

test('behind a trusted proxy the caller is who it says, and TLS is known', async () => {
  const behind = await openGatewayTown(whole, {
    GATEWAY_TRUSTED_PROXIES: '127.0.0.0/8',
    GATEWAY_BEHIND_TLS: 'true',
  })
  await behind.rawNeighbour('devices', echo)
  const answer = await fetch(`${behind.url}/api/devices`, {
    headers: { authorization: `Bearer ${behind.token()}`, 'x-forwarded-for': '1.2.3.4, 203.0.113.9' },
  })
  const { headers } = JSON.parse(await answer.text())
  expect(headers).toMatchObject({ 'x-forwarded-for': '203.0.113.9', 'x-forwarded-proto': 'https' })
  expect(answer.headers.get('strict-transport-security')).toMatch(/max-age=\d{7,}/)
  await behind.close()
})
