import { type Collector, openCollector } from '@cloudphone/testing/collector'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openLog } from './log.ts'
import { type Metrics, openMetrics } from './metrics.ts'
import { currentSpan, currentTraceparent, inSpan, newTraceparent, type Tracer } from './trace.ts'
import { openTracing, type Tracing, type TracingOptions } from './tracing.ts'

let collector: Collector
let metrics: Metrics
let lines: { event: string }[]
let tracing: Tracing

beforeEach(async () => {
  collector = await openCollector()
  metrics = openMetrics('test')
  lines = []
})
afterEach(async () => {
  await tracing.close()
  await collector.close()
})

function open(options: Partial<TracingOptions> = {}): Tracer {
  const destination = { write: (line: string) => lines.push(JSON.parse(line)) }
  tracing = openTracing({
    ...{ endpoint: collector.endpoint, sampler: 'parentbased_always_on', ratio: 1, metrics },
    log: openLog({ level: 'info', format: 'json', destination }),
    ...options,
  })
  return tracing.tracerOf({ name: 'devices', instance: 0 })
}

async function counted(name: string): Promise<string[]> {
  return (await metrics.render()).split('\n').filter((line) => line.startsWith(name))
}

const facts = (name: string, parent?: string) => ({ name, kind: 'internal', parent }) as const

test('a span goes to the collector with its parent, and is what its work runs in', async () => {
  const tracer = open()
  const caller = newTraceparent()
  const outer = { name: 'outer', kind: 'server', parent: caller, attributes: { at: 'door', n: 1 } } as const
  await inSpan(tracer, outer, async (span) => {
    expect(currentSpan()).toBe(span)
    await inSpan(tracer, facts('inner', currentTraceparent()), async (own) => own?.note({ late: true }))
  })
  await tracing.close()
  const [inner, first] = collector.spans
  expect(first).toMatchObject({
    ...{ name: 'outer', kind: 'server', service: 'devices', hasFailed: false },
    ...{ traceId: caller.slice(3, 35), parentSpanId: caller.slice(36, 52), attributes: { at: 'door', n: 1 } },
  })
  expect(inner).toMatchObject({ parentSpanId: first?.spanId, attributes: { late: true } })
  expect(await counted('trace_spans_exported_total')).toEqual([
    'trace_spans_exported_total{service="test"} 2',
  ])
})

test('work that throws fails its span, by a type of few values', async () => {
  const tracer = open()
  const refused = Object.assign(new Error('no phone 4711'), { code: 'device_not_found' })
  await expect(inSpan(tracer, facts('try'), () => Promise.reject(refused))).rejects.toBe(refused)
  await expect(inSpan(tracer, facts('try'), () => Promise.reject(new TypeError('odd')))).rejects.toThrow(
    'odd',
  )
  await tracing.close()
  expect(collector.spans.map(({ hasFailed }) => hasFailed)).toEqual([true, true])
  expect(collector.spans.map(({ attributes }) => attributes['error.type'])).toEqual([
    'device_not_found',
    'TypeError',
  ])
})

test('who names no cause, or a malformed one, begins a trace', async () => {
  const tracer = open()
  for (const parent of [undefined, '00-nonsense-01']) tracer.start(facts('first', parent)).end()
  await tracing.close()
  expect(collector.spans.map(({ parentSpanId }) => parentSpanId)).toEqual([undefined, undefined])
})

test('a caller that takes no trace is heeded, down to what its request causes', async () => {
  const tracer = open()
  const caller = newTraceparent().replace(/01$/, '00')
  const span = tracer.start(facts('quiet', caller))
  span.end()
  // Nobody will see a span between, so there is none.
  expect(span.traceparent).toBe(caller)
  await tracing.close()
  expect(collector.spans).toEqual([])
})

test.each([
  ['always_off', 1, 0],
  ['always_on', 0, 1],
  ['traceidratio', 0, 0],
  ['traceidratio', 1, 1],
  ['parentbased_always_off', 1, 0],
  ['parentbased_traceidratio', 0, 0],
  ['parentbased_traceidratio', 1, 1],
] as const)('of a trace that begins here, %s with %d sends %d', async (sampler, ratio, sent) => {
  const tracer = open({ sampler, ratio })
  tracer.start(facts('first')).end()
  await tracing.close()
  expect(collector.spans).toHaveLength(sent)
})

test('the operator may name the service', async () => {
  open({ serviceName: 'phones-in-berlin', endpoint: `${collector.endpoint}/` })
    .start(facts('first'))
    .end()
  await tracing.close()
  expect(collector.spans[0]?.service).toBe('phones-in-berlin')
})

test('a collector that takes nothing costs spans, which are counted, and is told of once', async () => {
  const tracer = open()
  const give = async (name: string, look: () => Promise<unknown>, expected: unknown) => {
    tracer.start(facts(name)).end()
    await expect.poll(look, { timeout: 10_000 }).toEqual(expected)
  }
  const dropped = () => counted('trace_spans_dropped_total')
  collector.answer(400)
  const label = 'reason="export_failed",service="test"'
  await give('lost', dropped, [`trace_spans_dropped_total{${label}} 1`])
  await give('lost too', dropped, [`trace_spans_dropped_total{${label}} 2`])
  collector.answer(200)
  const exported = () => counted('trace_spans_exported_total')
  await give('taken', exported, ['trace_spans_exported_total{service="test"} 1'])
  expect(collector.spans.map(({ name }) => name)).toEqual(['taken'])
  expect(lines.map(({ event }) => event)).toEqual(['trace.spans_dropped', 'trace.spans_taken_again'])
})
