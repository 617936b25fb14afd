import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import { item, route } from '@cloudphone/contracts/route'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { currentSpan, currentTraceparent, newTraceparent, type Tracer } from '@cloudphone/observe/trace'
import { openTracing } from '@cloudphone/observe/tracing'
import { staticRegistry } from '@cloudphone/registry/registry'
import { openCollector } from '@cloudphone/testing/collector'
import { afterEach, expect, test } from 'vitest'
import { z } from 'zod'
import { ClosingStack } from './closing.ts'
import { type Binding, bind, openHttpServer } from './http-server.ts'
import { common } from './problem.ts'
import { openServiceClient } from './service-client.ts'
import { openServiceTokens } from './tokens.ts'

/* Two services, of which one asks the other. */

const Seen = z.object({ traceparent: z.string(), hasSpan: z.boolean() })
const shared = { method: 'POST', summary: 'For the test.' } as const
const Outer = route({
  ...{ ...shared, name: 'outer', service: 'devices', path: '/api/outer', access: { kind: 'public' } },
  answer: item(z.object({ outer: Seen, inner: Seen })),
})
const Inner = route({
  ...{ ...shared, name: 'inner', service: 'users', path: '/internal/inner/:id', access: { kind: 'service' } },
  params: z.object({ id: z.string() }),
  query: z.object({ secret: z.string() }),
  answer: item(Seen),
})
const Waiting = route({
  ...{ ...shared, name: 'waiting', service: 'devices', path: '/api/waiting', access: { kind: 'public' } },
  answer: item(z.object({})),
})
const Broken = route({
  ...{ ...shared, name: 'broken', service: 'devices', path: '/api/broken', access: { kind: 'public' } },
  answer: item(z.object({})),
})

let closing = new ClosingStack(silentLog())
afterEach(async () => {
  await closing.close()
  closing = new ClosingStack(silentLog())
})

const seen = () => ({ traceparent: currentTraceparent() ?? '', hasSpan: currentSpan() !== undefined })

async function openServices(
  tracers: { devices?: Tracer; users?: Tracer } = {},
  arrived: () => void = () => undefined,
) {
  const registry = staticRegistry()
  const serviceTokens = openServiceTokens({ secret: 'x'.repeat(32), now: () => new Date() })
  const serve = async (service: 'devices' | 'users', bindings: readonly Binding[]) => {
    const app = await openHttpServer(
      {
        ...{ service, log: silentLog(), metrics: openMetrics(service), sharedMetrics: undefined },
        ...{ serviceTokens, tokens: { verify: () => Promise.reject(common.invalid_token()) } },
        ...{ idempotency: undefined, ready: async () => true, uploadLimitBytes: 0, tracer: tracers[service] },
      },
      bindings,
    )
    const address = await app.listen({ host: '127.0.0.1', port: 0 })
    closing.add(service, app)
    await registry.register(service, address)
    return address
  }
  const client = openServiceClient({ self: 'devices', registry, serviceTokens, tracer: tracers.devices })
  closing.add('client', client)
  await serve('users', [bind(Inner, async () => seen())])
  return await serve('devices', [
    bind(Outer, async () => ({
      outer: seen(),
      inner: await client.call(Inner, { params: { id: 'seven' }, query: { secret: 'of nobody' } }),
    })),
    bind(Waiting, async ({ signal }) => {
      arrived()
      await once(signal, 'abort')
      return {}
    }),
    bind(Broken, () => Promise.reject(new Error('as it happens'))),
  ])
}

async function openTraced(arrived?: () => void) {
  const collector = closing.add('collector', await openCollector())
  const { endpoint } = collector
  const options = { endpoint, sampler: 'parentbased_always_on', ratio: 1, log: silentLog() } as const
  const tracing = closing.add('tracing', openTracing({ ...options, metrics: openMetrics('test') }))
  const devices = tracing.tracerOf({ name: 'devices', instance: 0 })
  const users = tracing.tracerOf({ name: 'users', instance: 0 })
  const url = await openServices({ devices, users }, arrived)
  // A span ends with its connection's work, a moment after the caller has the answer.
  const spans = async (count: number) => {
    await expect.poll(() => collector.spans, { timeout: 10_000 }).toHaveLength(count)
    return collector.spans
  }
  return { url, spans }
}

async function post(url: string, traceparent?: string): Promise<{ status: number; data: unknown }> {
  const headers = { 'content-type': 'application/json', ...(traceparent !== undefined && { traceparent }) }
  const response = await fetch(url, { method: 'POST', headers, body: '{}' })
  return { status: response.status, data: ((await response.json()) as { data?: unknown }).data }
}

test('without a tracer no span is made, and the trace goes from service to service as it came', async () => {
  const url = await openServices()
  const traceparent = newTraceparent()
  const untouched = { traceparent, hasSpan: false }
  expect(await post(`${url}/api/outer`, traceparent)).toEqual({
    ...{ status: 200, data: { outer: untouched, inner: untouched } },
  })
})

test('with one, request, call and request are three generations', async () => {
  const { url, spans } = await openTraced()
  const traceparent = newTraceparent()
  await post(`${url}/api/outer`, traceparent)
  await fetch(`${url}/health/live`)
  await fetch(`${url}/metrics`)
  const all = await spans(3)
  const [outer, call, inner] = ['/api/outer', undefined, '/internal/inner/:id'].map((path) =>
    all.find(({ attributes }) => attributes['http.route'] === path),
  )
  const method = { 'http.request.method': 'POST', 'http.response.status_code': 200 }
  expect(outer).toMatchObject({
    ...{ kind: 'server', service: 'devices', name: 'POST /api/outer' },
    ...{ traceId: traceparent.slice(3, 35), parentSpanId: traceparent.slice(36, 52) },
    attributes: { ...method, 'url.path': '/api/outer', 'http.route': '/api/outer' },
  })
  expect(call).toMatchObject({
    ...{ kind: 'client', service: 'devices', name: 'POST /internal/inner/:id', parentSpanId: outer?.spanId },
    attributes: {
      ...method,
      'url.template': '/internal/inner/:id',
      'url.full': expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+\/internal\/inner\/seven$/),
    },
  })
  expect(inner).toMatchObject({
    ...{ kind: 'server', service: 'users', name: 'POST /internal/inner/:id', parentSpanId: call?.spanId },
    attributes: { ...method, 'url.path': '/internal/inner/seven' },
  })
})

test('a path without a route names no span, and our own failure is one', async () => {
  const { url, spans } = await openTraced()
  expect((await post(`${url}/api/${'x'.repeat(20)}`)).status).toBe(404)
  expect((await post(`${url}/api/broken`)).status).toBe(500)
  const told = (await spans(2)).map(({ name, hasFailed, attributes }) => [
    ...[name, hasFailed, attributes['http.response.status_code'], attributes['error.type']],
  ])
  expect(told).toEqual([
    ['POST', false, 404, undefined],
    ['POST /api/broken', true, 500, '500'],
  ])
})

test('a request whose caller goes ends its span too', async () => {
  const arrival = Promise.withResolvers<void>()
  const { url, spans } = await openTraced(arrival.resolve)
  const request = httpRequest(`${url}/api/waiting`, { method: 'POST' })
  request.on('error', () => undefined) // it is ended below
  request.end()
  await arrival.promise
  request.destroy()
  expect((await spans(1))[0]).toMatchObject({ hasFailed: true, attributes: { 'error.type': 'caller_gone' } })
})
