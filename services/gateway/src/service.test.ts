import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { systemIds } from '@cloudphone/contracts/id'
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

const deviceId = '0198c5a8-0000-7000-8000-000000000001'

async function get(path: string, headers: Record<string, string> = {}) {
  const response = await fetch(`${town.url}${path}`, { headers })
  return { status: response.status, headers: response.headers, body: JSON.parse(await response.text()) }
}

/** Sends a request line as it is, which fetch would tidy up first. */
async function raw(lines: string): Promise<string> {
  const { hostname, port } = new URL(town.url)
  const socket = connect(Number(port), hostname)
  socket.write(lines)
  return text(socket)
}

test('a request goes on with its method, query, headers and body, and the answer comes back as it is', async () => {
  await town.rawNeighbour('devices', (request, response) => {
    response.statusCode = 202
    response.setHeader('x-from-service', 'yes')
    echo(request, response)
  })
  const token = town.token()
  const response = await fetch(`${town.url}/api/devices?dryRun=1&x=%2F`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${token}`,
      'content-type': 'application/json',
      'idempotency-key': 'once',
      'x-forwarded-for': '10.9.9.9',
      'x-request-id': 'my-request-1',
    },
    body: '{"name":"云手机"}',
  })
  const seen = JSON.parse(await response.text())
  expect(response.status).toBe(202)
  expect(response.headers.get('x-from-service')).toBe('yes')
  expect(response.headers.get('x-request-id')).toBe('my-request-1')
  expect(response.headers.get('x-content-type-options')).toBe('nosniff')
  expect(response.headers.get('access-control-allow-origin')).toBeNull()
  expect(seen).toMatchObject({
    method: 'POST',
    url: '/api/devices?dryRun=1&x=%2F',
    body: '{"name":"云手机"}',
  })
  expect(seen.headers).toMatchObject({
    authorization: `Bearer ${token}`,
    'idempotency-key': 'once',
    'x-forwarded-for': '127.0.0.1',
    'x-forwarded-host': new URL(town.url).host,
    'x-request-id': 'my-request-1',
    traceparent: expect.stringMatching(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/),
  })
})

test('without a good token nothing is forwarded, and the refusal says why', async () => {
  let forwarded = 0
  await town.rawNeighbour('devices', (request, response) => {
    forwarded += 1
    echo(request, response)
  })
  expect(await get('/api/devices')).toMatchObject({ status: 401, body: { code: 'unauthenticated' } })
  const wrong = await get('/api/devices', { authorization: 'Bearer nonsense' })
  expect(wrong).toMatchObject({ status: 401, body: { code: 'invalid_token', success: false } })
  expect(wrong.headers.get('content-type')).toMatch(/^application\/problem\+json/)
  const old = town.token({ lifeSeconds: -10 })
  expect(await get('/api/devices', { authorization: `Bearer ${old}` })).toMatchObject({
    body: { code: 'token_expired' },
  })
  expect(forwarded).toBe(0)
})

test('a public route passes whatever token comes with it', async () => {
  const { status } = await get('/api/auth/jwks', { authorization: 'Bearer nonsense' })
  expect(status).toBe(200)
})

test('an API key becomes its owner’s access token, asked for once', async () => {
  const userId = systemIds.next<'user'>()
  const key = `cpk_${'k'.repeat(43)}`
  const apiKeys = await town.openApiKeys()
  apiKeys.set(key, { userId, asked: 0 })
  await town.rawNeighbour('devices', echo)
  const answers = await Promise.all([
    get('/api/devices', { authorization: `Bearer ${key}` }),
    get('/api/devices', { 'x-api-key': key }),
  ])
  answers.push(await get('/api/devices', { 'x-api-key': key }))
  for (const { status, body } of answers) {
    expect(status).toBe(200)
    expect(body.headers).not.toHaveProperty('x-api-key')
    const claims = JSON.parse(Buffer.from(body.headers.authorization.split('.')[1], 'base64url').toString())
    expect(claims.sub).toBe(userId)
  }
  expect(apiKeys.get(key)?.asked).toBe(1)
  expect(await get('/api/devices', { 'x-api-key': `cpk_${'x'.repeat(43)}` })).toMatchObject({
    status: 401,
    body: { code: 'invalid_api_key' },
  })
})

test('nothing internal is reachable, however the path is written', async () => {
  const reached: string[] = []
  const spy = (request: IncomingMessage) => void reached.push(request.url ?? '')
  for (const service of ['devices', 'apps', 'scheduler'] as const) {
    await town.rawNeighbour(service, (request, response) => {
      spy(request)
      response.end('{}')
    })
  }
  const bearer = `authorization: Bearer ${town.token({ role: 'admin', isPlatform: true })}`
  const tricks = [
    '/internal/invariants',
    '/internal/api-keys/exchange',
    '/api/../internal/invariants',
    '/api/%2e%2e/internal/invariants',
    '/api/devices/..%2f..%2finternal%2finvariants',
    '/api/devices/%2e%2e',
    '/api/devices/../../internal/invariants',
    '/api/devices/..%5c..%5cinternal',
    '//internal/invariants',
    '/api//devices',
    '/API/devices',
    '/api/devices;x=/../internal',
    'http://evil.example/internal/invariants',
    '/api/devices/%00',
    '/api/devices/%0d%0aInternal',
  ]
  for (const path of tricks) {
    const answer = await raw(`GET ${path} HTTP/1.1\r\nhost: x\r\n${bearer}\r\nconnection: close\r\n\r\n`)
    expect(answer, path).toMatch(/^HTTP\/1\.1 40[04] /)
    expect(answer, path).toContain('application/problem+json')
  }
  expect(reached).toEqual([])
  const absolute = await raw(
    `GET http://evil.example/api/devices?a=1 HTTP/1.1\r\nhost: x\r\n${bearer}\r\nconnection: close\r\n\r\n`,
  )
  expect(absolute).toMatch(/^HTTP\/1\.1 200 /)
  expect(reached).toEqual(['/api/devices?a=1'])
})

test('a flood of headers is refused by the server, and the next caller is served', async () => {
  await town.rawNeighbour('devices', echo)
  const flood = Array.from({ length: 500 }, (_, index) => `x-${index}: ${'y'.repeat(40)}`).join('\r\n')
  expect(await raw(`GET /api/devices HTTP/1.1\r\nhost: x\r\n${flood}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 431 /)
  const authorization = `Bearer ${town.token()}`
  expect((await get('/api/devices', { authorization })).status).toBe(200)
})

test('a 200 MB upload passes with back-pressure, in constant memory', async () => {
  const chunk = randomBytes(1024 * 1024)
  const chunks = 200
  const seen = createHash('sha256')
  let received = 0
  await town.rawNeighbour('apps', (request, response) => {
    request.on('data', (part: Buffer) => {
      seen.update(part)
      received += part.length
      // A slow reader: now and then it stops until the event loop has gone round.
      if (Math.random() < 0.05) {
        request.pause()
        setImmediate(() => request.resume())
      }
    })
    request.on('end', () => response.end(JSON.stringify({ received, type: request.headers['content-type'] })))
  })
  const sent = createHash('sha256')
  globalThis.gc?.()
  const before = process.memoryUsage().rss
  let peak = before
  const upload = httpRequest(`${town.url}/api/apps`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${town.token()}`,
      'content-type': 'multipart/form-data; boundary=b',
      'content-length': chunk.length * chunks,
    },
  })
  const answered = once(upload, 'response')
  for (let index = 0; index < chunks; index += 1) {
    sent.update(chunk)
    if (!upload.write(chunk)) await once(upload, 'drain')
    peak = Math.max(peak, process.memoryUsage().rss)
  }
  upload.end()
  const [response] = (await answered) as [IncomingMessage]
  expect(JSON.parse(await text(response))).toEqual({
    received: chunk.length * chunks,
    type: 'multipart/form-data; boundary=b',
  })
  expect(seen.digest('hex')).toBe(sent.digest('hex'))
  // Client, gateway and service share this process; measured 30 to 60 MB, whatever the size of the upload.
  expect(peak - before).toBeLessThan(120 * 1024 * 1024)
})

test('a slow reader slows the service down instead of filling the gateway', async () => {
  const piece = Buffer.alloc(256 * 1024)
  let produced = 0
  let ended = false
  await town.rawNeighbour('devices', (_request, response) => {
    const pump = (): void => {
      while (produced < 400) {
        produced += 1
        if (!response.write(piece)) return void response.once('drain', pump)
      }
      response.end()
      ended = true
    }
    pump()
  })
  const download = httpRequest(`${town.url}/api/devices/${deviceId}/screenshot`, {
    headers: { authorization: `Bearer ${town.token()}` },
  }).end()
  const [response] = (await once(download, 'response')) as [IncomingMessage]
  response.pause()
  // Waits until the service has been held up for a while: nothing produced over 20 turns of the loop with time between.
  let still = 0
  for (let last = -1; still < 20; still = produced === last ? still + 1 : 0) {
    last = produced
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  expect(ended).toBe(false)
  let bytes = 0
  for await (const part of response) bytes += (part as Buffer).length
  expect(bytes).toBe(400 * piece.length)
})

test('a service that refuses an upload early is heard, although most of the body was never read', async () => {
  await town.rawNeighbour('apps', (_request, response) => {
    response.writeHead(413, { 'content-type': 'application/problem+json' })
    response.end('{"code":"body_too_large"}')
  })
  const upload = httpRequest(`${town.url}/api/apps`, {
    method: 'POST',
    headers: { authorization: `Bearer ${town.token()}`, 'content-length': 64 * 1024 * 1024 },
  })
  const answered = once(upload, 'response') as Promise<[IncomingMessage]>
  // Half of what was announced: the answer must not wait for the rest.
  for (let megabyte = 0; megabyte < 32; megabyte += 1) upload.write(Buffer.alloc(1024 * 1024))
  const [response] = await answered
  expect(response.statusCode).toBe(413)
  expect(await text(response)).toBe('{"code":"body_too_large"}')
  upload.destroy()
})

test('a caller who leaves takes the request behind the gateway along', async () => {
  const left = Promise.withResolvers<void>()
  const arrived = Promise.withResolvers<void>()
  await town.rawNeighbour('devices', (request) => {
    request.once('close', () => left.resolve())
    arrived.resolve()
  })
  const controller = new AbortController()
  const asking = fetch(`${town.url}/api/devices`, {
    headers: { authorization: `Bearer ${town.token()}` },
    signal: controller.signal,
  })
  await arrived.promise
  controller.abort()
  await expect(asking).rejects.toThrow()
  await left.promise
})

test('a dead instance is passed over, also for a POST, since nothing reached it', async () => {
  const dead = await town.rawNeighbour('devices', echo)
  await new Promise((resolve) => dead.close(resolve))
  await town.rawNeighbour('devices', echo)
  const authorization = `Bearer ${town.token()}`
  for (let turn = 0; turn < 4; turn += 1) {
    const response = await fetch(`${town.url}/api/devices`, {
      method: 'POST',
      headers: { authorization },
      body: `b${turn}`,
    })
    expect(response.status).toBe(200)
    expect(await response.json()).toMatchObject({ body: `b${turn}` })
  }
})

test('a broken connection is tried again for a GET, never for a POST', async () => {
  const tries: string[] = []
  await town.rawNeighbour('devices', (request, response) => {
    tries.push(request.method ?? '')
    if (tries.length % 2 === 1) request.socket.destroy()
    else response.end('{}')
  })
  const authorization = `Bearer ${town.token()}`
  expect((await get('/api/devices', { authorization })).status).toBe(200)
  expect(tries).toEqual(['GET', 'GET'])
  const post = await fetch(`${town.url}/api/devices`, {
    method: 'POST',
    headers: { authorization },
    body: 'x',
  })
  expect(post.status).toBe(503)
  expect(await post.json()).toMatchObject({ code: 'service_unavailable', success: false })
  expect(tries).toEqual(['GET', 'GET', 'POST'])
})

test('instances of a service take turns', async () => {
  const served = [0, 0]
  for (const index of [0, 1]) {
    await town.rawNeighbour('devices', (_request, response) => {
      served[index]! += 1
      response.end('{}')
    })
  }
  const authorization = `Bearer ${town.token()}`
  for (let turn = 0; turn < 6; turn += 1) await get('/api/devices', { authorization })
  expect(served).toEqual([3, 3])
})

test('sagas are asked for at the service that runs their type', async () => {
  await town.rawNeighbour('devices', echo)
  await town.rawNeighbour('scheduler', echo)
  const authorization = `Bearer ${town.token()}`
  const creation = await get(`/api/sagas/device_creation-${deviceId}?wait=1`, { authorization })
  expect(creation.body.url).toBe(`/api/sagas/device_creation-${deviceId}?wait=1`)
  expect((await get(`/api/sagas/allocation_grant-${deviceId}`, { authorization })).status).toBe(200)
  for (const unknown of [`nobody_runs-${deviceId}`, 'nonsense']) {
    expect(await get(`/api/sagas/${unknown}`, { authorization })).toMatchObject({
      status: 404,
      body: { code: 'saga_not_found', sagaId: unknown },
    })
  }
})

test('answers without a body stay without one', async () => {
  await town.rawNeighbour('devices', (request, response) => {
    response.statusCode = request.method === 'HEAD' ? 200 : 204
    response.end()
  })
  const authorization = `Bearer ${town.token()}`
  const deleted = await fetch(`${town.url}/api/devices/${deviceId}`, {
    method: 'DELETE',
    headers: { authorization },
  })
  expect([deleted.status, await deleted.text()]).toEqual([204, ''])
  const head = await fetch(`${town.url}/api/devices`, { method: 'HEAD', headers: { authorization } })
  expect([head.status, await head.text()]).toEqual([200, ''])
})

test('a WebSocket passes to the notifications service and ends with the gateway; polling is refused', async () => {
  const server = await town.rawNeighbour('notifications', echo)
  let handshake = ''
  server.on('upgrade', (request, socket) => {
    handshake = `${request.url} ${request.headers['x-forwarded-for']}`
    socket.write('HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n')
    socket.pipe(socket)
    socket.on('error', () => socket.destroy())
  })
  const upgrade = { connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-key': 'k' }
  const opening = httpRequest(`${town.url}/socket.io/?EIO=4&transport=websocket`, { headers: upgrade }).end()
  const [, socket] = await once(opening, 'upgrade')
  socket.write('hello')
  expect(String((await once(socket, 'data'))[0])).toBe('hello')
  expect(handshake).toBe('/socket.io/?EIO=4&transport=websocket 127.0.0.1')
  const elsewhere = httpRequest(`${town.url}/api/devices`, { headers: upgrade }).end()
  expect(((await once(elsewhere, 'response'))[0] as IncomingMessage).statusCode).toBe(404)
  const polling = await get('/socket.io/?EIO=4&transport=polling')
  expect(polling).toMatchObject({ status: 400, body: { code: 'websocket_only' } })
  const closed = once(socket, 'close')
  socket.on('error', () => socket.destroy())
  await town.gateway.close()
  await closed
})

test('the pages are there, in two languages, without anything from elsewhere', async () => {
  const page = await fetch(town.url, { headers: { accept: 'text/html' } })
  expect(await page.text()).toMatch(/Android cloud phones[\s\S]*安卓云手机/)
  expect((await get('/')).body.data.docs).toBe('/api/docs')
  const docs = await fetch(`${town.url}/api/docs`)
  const html = await docs.text()
  expect(docs.status).toBe(200)
  expect(html).not.toMatch(/(src|href)="https?:/)
  const policy = docs.headers.get('content-security-policy') ?? ''
  expect(policy).toContain("script-src 'self'")
  // The policy allows no inline script, so the page must not need one.
  expect(html).not.toMatch(/<script(?![^>]*\bsrc=)[^>]*>/)
  const description = await get('/api/openapi.json')
  expect(description.body.openapi).toBe('3.1.0')
})
