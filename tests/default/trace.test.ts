import { randomUUID } from 'node:crypto'
import * as apps from '@cloudphone/contracts/api/apps-api'
import type { Device } from '@cloudphone/contracts/api/devices-api'
import { newTraceparent } from '@cloudphone/observe/trace'
import { type CollectedSpan, type Collector, openCollector } from '@cloudphone/testing/collector'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Answer, ask, ended, newPerson, type Person, realApk } from '../src/door.ts'
import { openPlatform, type TestPlatform } from '../src/platform.ts'
import { until } from '../src/until.ts'

/* One request, followed through everything that it causes: a collector sees one tree. */

let collector: Collector
let platform: TestPlatform
let alice: Person
let phone: Device

beforeAll(async () => {
  collector = await openCollector()
  platform = await openPlatform({ OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint })
  alice = await newPerson(platform.client)
})
afterAll(async () => {
  await platform?.close()
  await collector?.close()
})

/** A span with its place: `devices: saga device_creation START_DEVICE`. */
const place = ({ service, name }: CollectedSpan): string => `${service}: ${name}`

class Trace {
  readonly traceparent = newTraceparent()
  readonly callersSpan = this.traceparent.slice(36, 52)
  readonly #id = this.traceparent.slice(3, 35)

  get spans(): readonly CollectedSpan[] {
    return collector.spans.filter(({ traceId }) => traceId === this.#id)
  }

  get #byId(): ReadonlyMap<string, CollectedSpan> {
    return new Map(this.spans.map((span) => [span.spanId, span]))
  }

  /** Those whose parent nobody has sent, other than the caller's own. */
  get orphans(): readonly CollectedSpan[] {
    const known = this.#byId
    return this.spans.filter(
      ({ parentSpanId = '' }) => parentSpanId !== this.callersSpan && !known.has(parentSpanId),
    )
  }

  /** From the caller's request down to a span of that place. */
  pathsTo(last: string): string[][] {
    const known = this.#byId
    const pathOf = (span: CollectedSpan): string[] => {
      const parent = known.get(span.parentSpanId ?? '')
      return [...(parent === undefined ? [] : pathOf(parent)), place(span)]
    }
    return this.spans.filter((span) => place(span) === last).map(pathOf)
  }

  /** Sends a request in this trace; resolves when the saga that it starts has ended. */
  async ask(method: string, path: string, body: unknown): Promise<Answer['body']> {
    const answer = await ask(alice.client, method, path, { body, headers: { traceparent: this.traceparent } })
    expect(answer.status).toBe(202)
    return answer.body.data
  }

  /** Resolves when spans of all these places are here, and the parents of all that are. */
  async isWhole(places: readonly string[]): Promise<void> {
    await until(`the spans of ${places.join(', ')}`, async () => {
      const seen = new Set(this.spans.map(place))
      return this.orphans.length === 0 && places.every((one) => seen.has(one))
    })
    expect(this.orphans).toEqual([])
  }
}

test('a phone: from the door through a saga to other services, by HTTP and by events', async () => {
  const trace = new Trace()
  const asked = await trace.ask('POST', '/api/devices', { name: 'traced', resolution: '360x640', dpi: 160 })
  expect(await ended(alice.client, asked.sagaId)).toMatchObject({ status: 'COMPLETED' })
  phone = asked.device
  await trace.isWhole([
    ...['billing: process device.started', 'scheduler: process device.started'],
    ...['scheduler: process device.created', 'gateway: POST /api/devices'],
  ])

  const door = ['gateway: POST /api/devices', 'gateway: POST /api/devices', 'devices: POST /api/devices']
  const start = [...door, 'devices: saga device_creation START_DEVICE']
  const started = [...start, 'devices: publish device.started']
  expect(trace.pathsTo('billing: process device.started')).toEqual([
    [...started, 'billing: process device.started'],
  ])
  expect(trace.pathsTo('scheduler: process device.started')).toEqual([
    [...started, 'scheduler: process device.started'],
  ])
  const commit = 'POST /internal/quota/reservations/:reservationId/commit'
  expect(trace.pathsTo(`users: ${commit}`)).toEqual([
    [...door, 'devices: saga device_creation REPORT_QUOTA_USAGE', `devices: ${commit}`, `users: ${commit}`],
  ])
  const tries = trace.spans.filter(({ name }) => name.startsWith('saga '))
  expect(tries.map(({ name }) => name.split(' ')[2])).toEqual([
    ...['ALLOCATE_PORTS', 'CREATE_PROVIDER_DEVICE', 'CREATE_DATABASE_RECORD'],
    ...['REPORT_QUOTA_USAGE', 'START_DEVICE'],
  ])
  for (const { attributes } of tries) {
    expect(attributes).toMatchObject({
      ...{ 'saga.type': 'device_creation', 'saga.id': asked.sagaId, 'saga.direction': 'do' },
      ...{ 'saga.attempt': 1, 'saga.outcome': 'done' },
    })
  }
  const [first] = trace.spans.filter(({ service, kind }) => service === 'gateway' && kind === 'server')
  expect(first).toMatchObject({
    parentSpanId: trace.callersSpan,
    attributes: {
      'http.route': '/api/devices',
      'http.response.status_code': 202,
      'url.path': '/api/devices',
    },
  })
  expect(new Set(trace.spans.map(({ spanId }) => spanId)).size).toBe(trace.spans.length)
  expect(trace.spans.filter(({ hasFailed }) => hasFailed)).toEqual([])
})

test('an app: what a consumer does goes on in the trace, to sagas and events of its own', async () => {
  const apk = await realApk()
  const app = await alice.client.upload(apps.UploadApp, await apk.file())
  const trace = new Trace()
  const { installationId } = await trace.ask('POST', `/api/apps/${app.id}/install`, { deviceId: phone.id })
  const done = await alice.client.call(apps.GetInstallation, {
    ...{ params: { installationId }, query: { wait: 30 } },
  })
  expect(done.status).toBe('installed')
  await trace.isWhole(['notifications: process app.install.completed', 'apps: process app.install.completed'])

  const [path, ...others] = trace.pathsTo('notifications: process app.install.completed')
  expect(others).toEqual([])
  expect(path?.filter((one) => !one.startsWith('gateway'))).toEqual([
    'apps: POST /api/apps/:appId/install',
    'apps: publish app.install.requested',
    'devices: process app.install.requested',
    expect.stringMatching(/^devices: saga app_installation \w+$/),
    'devices: publish app.install.completed',
    'notifications: process app.install.completed',
  ])
})

test('what fails says so, and what is not asked for by anybody has a trace of its own', async () => {
  const trace = new Trace()
  const headers = { traceparent: trace.traceparent }
  const refused = await ask(alice.client, 'GET', `/api/devices/${randomUUID()}`, { headers })
  expect(refused.status).toBe(404)
  await trace.isWhole(['gateway: GET /api/devices/:deviceId', 'devices: GET /api/devices/:deviceId'])
  // By the conventions a refusal is the caller's failure, not the server's.
  expect(trace.spans.filter(({ hasFailed }) => hasFailed).map(({ kind }) => kind)).toEqual(['client'])
  expect(trace.spans.map(({ attributes }) => attributes['http.response.status_code'])).toEqual([
    404, 404, 404,
  ])

  const strange = { traceparent: '00-not-a-trace-01' }
  const answer = await ask(alice.client, 'GET', '/api/devices', { headers: strange })
  const requestId = answer.headers.get('x-request-id')
  const own = await until('the span of that request', async () =>
    collector.spans.find(
      ({ service, attributes }) => service === 'gateway' && attributes['cloudphone.request_id'] === requestId,
    ),
  )
  expect(own.parentSpanId).toBeUndefined()
})
