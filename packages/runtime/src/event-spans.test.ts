import type { PublishOutcome } from '@cloudphone/bus/bus'
import { on } from '@cloudphone/bus/consumer'
import type { EventEnvelope } from '@cloudphone/contracts/event'
import { UserCreated } from '@cloudphone/contracts/events/user-events'
import { systemIds } from '@cloudphone/contracts/id'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { newTraceparent } from '@cloudphone/observe/trace'
import { openTracing } from '@cloudphone/observe/tracing'
import { openCollector } from '@cloudphone/testing/collector'
import { afterEach, expect, test } from 'vitest'
import { ClosingStack } from './closing.ts'
import { withProcessSpans, withPublishSpans } from './event-spans.ts'

let closing = new ClosingStack(silentLog())
afterEach(async () => {
  await closing.close()
  closing = new ClosingStack(silentLog())
})

function envelope(traceparent?: string): EventEnvelope {
  return {
    ...{ specversion: '1.0', id: systemIds.next<'event'>(), source: '/cloudphone/users' },
    ...{ type: 'user.created', subject: 'user-1', time: new Date().toISOString() },
    ...{ datacontenttype: 'application/json', dataschema: 'urn:cloudphone:user.created:v1' },
    ...{ aggregatetype: 'user', aggregateversion: 1, data: {} },
    ...(traceparent !== undefined && { traceparent }),
  }
}

async function openTraced() {
  const collector = closing.add('collector', await openCollector())
  const options = { sampler: 'parentbased_always_on', ratio: 1, log: silentLog() } as const
  const { endpoint } = collector
  const tracing = openTracing({ ...options, endpoint, metrics: openMetrics('test') })
  closing.add('tracing', tracing)
  return { collector, tracing, tracer: tracing.tracerOf({ name: 'users', instance: 0 }) }
}

test('without a tracer bus and handlers are what they were', () => {
  const bus = { declare: async () => undefined, publish: async () => [] }
  const handlers = [on(UserCreated, async () => undefined)]
  expect(withPublishSpans(bus, undefined)).toBe(bus)
  expect(withProcessSpans(handlers, undefined)).toBe(handlers)
})

test('an event takes the span of its publishing along; one that the bus does not take has failed', async () => {
  const { collector, tracing, tracer } = await openTraced()
  const sent: EventEnvelope[] = []
  const outcomes: PublishOutcome[] = [{ outcome: 'accepted' }, { outcome: 'unroutable' }]
  const publish = async (envelopes: readonly EventEnvelope[]) => {
    sent.push(...envelopes)
    return outcomes
  }
  const bus = withPublishSpans({ declare: async () => undefined, publish }, tracer)
  const cause = newTraceparent()
  const events = [envelope(cause), envelope()]
  expect(await bus.publish(events)).toBe(outcomes)
  await tracing.close()
  const [taken, refused] = collector.spans
  expect(taken).toMatchObject({
    ...{ name: 'publish user.created', kind: 'producer', hasFailed: false },
    ...{ traceId: cause.slice(3, 35), parentSpanId: cause.slice(36, 52) },
    attributes: { 'messaging.message.id': events[0]?.id, 'messaging.batch.message_count': 2 },
  })
  expect(refused).toMatchObject({ hasFailed: true, attributes: { 'error.type': 'unroutable' } })
  expect(refused?.parentSpanId).toBeUndefined()
  expect(sent).toEqual(
    events.map((event, at) => {
      const { traceId, spanId } = collector.spans[at] ?? expect.unreachable('no such span')
      return { ...event, traceparent: `00-${traceId}-${spanId}-01` }
    }),
  )
})

test('a bus that is away fails the spans of all its events', async () => {
  const { collector, tracing, tracer } = await openTraced()
  const away = Object.assign(new Error('no bus'), { code: 'ECONNREFUSED' })
  const bus = withPublishSpans(
    { declare: async () => undefined, publish: () => Promise.reject(away) },
    tracer,
  )
  await expect(bus.publish([envelope(), envelope()])).rejects.toBe(away)
  await tracing.close()
  expect(collector.spans.map(({ attributes }) => attributes['error.type'])).toEqual([
    'ECONNREFUSED',
    'ECONNREFUSED',
  ])
})
