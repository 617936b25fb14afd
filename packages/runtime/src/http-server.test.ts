import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { item, route } from '@cloudphone/contracts/route'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { staticRegistry } from '@cloudphone/registry/registry'
import { afterEach, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { type Binding, bind, openHttpServer } from './http-server.ts'
import { common, defineProblems } from './problem.ts'
import { openServiceClient } from './service-client.ts'
import { openServiceTokens } from './tokens.ts'

const Echo = route({
  name: 'echo',
  service: 'users',
  method: 'POST',
  path: '/api/echo/:word',
  summary: 'Says it again.',
  access: { kind: 'public' },
  params: z.strictObject({ word: z.string().max(5) }),
  query: z.strictObject({ times: z.coerce.number().int().max(3).default(1) }),
  body: z.strictObject({ loud: z.boolean() }),
  answer: item(z.object({ said: z.string() }), 201),
})
const Wait = route({
  name: 'wait',
  service: 'users',
  method: 'GET',
  path: '/api/wait',
  summary: 'Answers when it must.',
  access: { kind: 'public' },
  answer: item(z.object({ why: z.string() })),
})
const Take = route({
  name: 'take',
  service: 'users',
  method: 'POST',
  path: '/api/take',
  summary: 'Takes a file.',
  access: { kind: 'public' },
  upload: 'file',
  answer: item(z.object({ said: z.string() })),
})
const Inner = route({
  name: 'inner',
  service: 'users',
  method: 'GET',
  path: '/internal/inner',
  summary: 'For services.',
  access: { kind: 'service' },
  answer: item(z.object({ from: z.string() })),
})

const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closers.splice(0)) await close()
})

const serviceTokens = openServiceTokens({ secret: 'x'.repeat(32), now: () => new Date() })

async function serve(bindings: readonly Binding[]) {
  const app = await openHttpServer(
    {
      service: 'users',
      log: silentLog(),
      metrics: openMetrics('users'),
      sharedMetrics: undefined,
      tokens: { verify: async () => Promise.reject(common.invalid_token()) },
      serviceTokens,
      idempotency: undefined,
      ready: async () => true,
      uploadLimitBytes: 1024,
    },
    bindings,
  )
  await app.listen({ host: '127.0.0.1', port: 0 })
  closers.push(() => app.close())
  const address = app.server.address()
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0
  return { app, port, url: `http://127.0.0.1:${port}` }
}

const echo = bind(Echo, async ({ params, query, body }) => ({
  said: (body.loud ? params.word.toUpperCase() : params.word).repeat(query.times),
}))

async function say(url: string, path: string, body: unknown, headers: Record<string, string> = {}) {
  const response = await fetch(`${url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })
  return {
    status: response.status,
    headers: response.headers,
    json: (await response.json()) as Record<string, unknown>,
  }
}

describe('a bound route', () => {
  it('gets what its contract promises and answers in the envelope', async () => {
    const { url } = await serve([echo])
    const { status, json } = await say(url, '/api/echo/hey?times=2', { loud: true })
    expect(status).toBe(201)
    expect(json).toEqual({ success: true, data: { said: 'HEYHEY' } })
  })

  it('names every field that does not fit, with its place', async () => {
    const { url } = await serve([echo])
    const { status, json, headers } = await say(url, '/api/echo/toolong?times=9', { loud: 'yes', extra: 1 })
    expect(status).toBe(400)
    expect(headers.get('content-type')).toContain('application/problem+json')
    expect(json).toMatchObject({ success: false, code: 'invalid_request', status: 400 })
    expect((json.errors as { path: string }[]).map(({ path }) => path).sort()).toEqual([
      'body',
      'body.loud',
      'params.word',
      'query.times',
    ])
  })

  it('refuses text that no database keeps, wherever it comes', async () => {
    const { url } = await serve([echo])
    const { status, json } = await say(url, '/api/echo/a%00b?times=2', { loud: true })
    expect(status).toBe(400)
    expect(json.errors).toEqual([{ path: 'params.word', message: expect.stringContaining('U+0000') }])
  })

  it.each([
    ['broken JSON', '{"loud": tru', 400],
    ['a prototype on its way in', '{"__proto__": {"admin": true}, "loud": true}', 400],
    ['more than a MiB', JSON.stringify({ loud: true, pad: 'x'.repeat(1024 * 1024) }), 413],
  ])('refuses %s', async (_what, body, status) => {
    const { url } = await serve([echo])
    const answer = await say(url, '/api/echo/hey', body)
    expect(answer.status).toBe(status)
    expect(answer.json).toMatchObject({ success: false, requestId: expect.any(String) })
  })

  it('refuses another media type', async () => {
    const { url } = await serve([echo])
    const { status, json } = await say(url, '/api/echo/hey', 'loud=true', {
      'content-type': 'application/x-www-form-urlencoded',
    })
    expect(status).toBe(415)
    expect(json.code).toBe('unsupported_media_type')
  })

  it.each([
    ['without a boundary', 'multipart/form-data'],
    ['of an empty boundary', 'multipart/form-data; boundary='],
    ['that ends too early', 'multipart/form-data; boundary=b'],
  ])('says of a form %s that it cannot be read', async (_what, type) => {
    const { url } = await serve([bind(Take, async () => ({ said: 'taken' }))])
    const { status, json } = await say(url, '/api/take', '--b\n', { 'content-type': type })
    expect({ status, code: json.code }).toEqual({ status: 400, code: 'form_malformed' })
  })

  it('says of a form that breaks off in its file that it cannot be read', async () => {
    const take = bind(Take, async ({ upload }) => {
      for await (const _part of upload?.stream ?? []);
      return { said: 'taken' }
    })
    const { url } = await serve([take])
    const part = '--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nxyz'
    const { status, json } = await say(url, '/api/take', part, {
      'content-type': 'multipart/form-data; boundary=b',
    })
    expect({ status, code: json.code }).toEqual({ status: 400, code: 'form_malformed' })
  })

  it('takes a well-formed request id and makes one up instead of any other', async () => {
    const { url } = await serve([echo])
    const given = await say(url, '/api/echo/hey', { loud: true }, { 'x-request-id': 'abc-12345678' })
    expect(given.headers.get('x-request-id')).toBe('abc-12345678')
    const wild = await say(url, '/api/echo/hey', { loud: true }, { 'x-request-id': '<script>' })
    expect(wild.headers.get('x-request-id')).toMatch(/^[\w-]{36}$/)
  })

  it('keeps the inside of an unexpected error to itself', async () => {
    const { url } = await serve([bind(Echo, () => Promise.reject(new Error('password is hunter2')))])
    const { status, json } = await say(url, '/api/echo/hey', { loud: true })
    expect(status).toBe(500)
    expect(JSON.stringify(json)).not.toContain('hunter2')
    expect(json.code).toBe('internal_error')
  })

  it('shows a domain problem with its members', async () => {
    const problems = defineProblems({ too_shy: [409, 'The word {word} is too shy.'] })
    const { url } = await serve([bind(Echo, () => Promise.reject(problems.too_shy({ word: 'hey' })))])
    const { status, json } = await say(url, '/api/echo/hey', { loud: true })
    expect(status).toBe(409)
    expect(json).toMatchObject({ code: 'too_shy', detail: 'The word hey is too shy.', word: 'hey' })
  })

  it('knows services by their tokens, and only those meant for itself', async () => {
    const { url } = await serve([bind(Inner, async ({ service }) => ({ from: service ?? 'nobody' }))])
    const ask = async (token: string) =>
      fetch(`${url}/internal/inner`, { headers: { authorization: `Bearer ${token}` } })
    expect(await (await ask(await serviceTokens.sign('devices', 'users'))).json()).toEqual({
      success: true,
      data: { from: 'devices' },
    })
    expect((await ask(await serviceTokens.sign('devices', 'billing'))).status).toBe(401)
    expect((await fetch(`${url}/internal/inner`)).status).toBe(401)
  })
})

describe('a request that waits', () => {
  function waiting() {
    const begun = Promise.withResolvers<void>()
    const ended = Promise.withResolvers<string>()
    const binding = bind(Wait, async ({ signal }) => {
      begun.resolve()
      await once(signal, 'abort')
      ended.resolve(String(signal.reason.message))
      return { why: String(signal.reason.message) }
    })
    return { binding, begun: begun.promise, ended: ended.promise }
  }

  it('is answered when the service stops, so that it does not hold up the drain', async () => {
    const { binding, begun } = waiting()
    const { app, url } = await serve([binding])
    const answer = fetch(`${url}/api/wait`)
    await begun
    await app.close()
    expect(await (await answer).json()).toEqual({ success: true, data: { why: 'the service is stopping' } })
  })

  it('learns that its caller has gone', async () => {
    const { binding, begun, ended } = waiting()
    const { port } = await serve([binding])
    const socket = connect(port, '127.0.0.1')
    socket.write('GET /api/wait HTTP/1.1\r\nhost: x\r\n\r\n')
    await begun
    socket.destroy()
    expect(await ended).toBe('the caller has gone')
  })
})

describe('a deadline', () => {
  it('ends a wait, and is answered as one when the handler goes on', async () => {
    const signals: AbortSignal[] = []
    const { url: address } = await serve([
      bind(Wait, async ({ signal }) => {
        signals.push(signal)
        await once(signal, 'abort')
        await new Promise(() => undefined)
        return { why: 'late' }
      }),
    ])
    const answer = await fetch(`${address}/api/wait`, { headers: { 'x-deadline-ms': '20' } })
    expect(answer.status).toBe(504)
    expect(await answer.json()).toMatchObject({ code: 'deadline_exceeded', waitedMs: 20, success: false })
    expect(signals[0]?.aborted).toBe(true)
  })

  it('goes on to the services that are called, shorter by what has passed', async () => {
    const seen: string[] = []
    const inner = createServer((request, response) => {
      seen.push(String(request.headers['x-deadline-ms']))
      response.end('{"success":true,"data":{"from":"users"}}')
    })
    inner.listen(0, '127.0.0.1')
    await once(inner, 'listening')
    closers.push(async () => void inner.close())
    const registry = staticRegistry({ users: [`http://127.0.0.1:${(inner.address() as AddressInfo).port}`] })
    const client = openServiceClient({ self: 'devices', registry, serviceTokens })
    closers.push(() => client.close())
    const { url: address } = await serve([bind(Wait, async () => ({ why: (await client.call(Inner)).from }))])
    expect((await fetch(`${address}/api/wait`, { headers: { 'x-deadline-ms': '5000' } })).status).toBe(200)
    expect((await fetch(`${address}/api/wait`)).status).toBe(200)
    expect(Number(seen[0])).toBeLessThanOrEqual(5_000)
    expect(Number(seen[0])).toBeGreaterThan(0)
    expect(seen[1]).toBe('10000')
  })
})
