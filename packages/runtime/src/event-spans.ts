import type { Bus, PublishOutcome } from '@cloudphone/bus/bus'
import type { EventHandler } from '@cloudphone/bus/consumer'
import type { EventEnvelope } from '@cloudphone/contracts/event'
import { inSpan, type SpanFacts, type Tracer } from '@cloudphone/observe/trace'

/* An event's two spans stand around the ports of the kernel, not inside it: outbox and bus know nothing of tracing, and
 * without a tracer they are not even wrapped.
 * @see https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/ */

type Publisher = Pick<Bus, 'publish' | 'declare'>

/** A bus that makes the publishing of each event a span, under what wrote the event; the span goes with the event. */
export function withPublishSpans(bus: Publisher, tracer: Tracer | undefined): Publisher {
  if (tracer === undefined) return bus
  return { declare: () => bus.declare(), publish: (envelopes) => publish(bus, tracer, envelopes) }
}

async function publish(
  bus: Publisher,
  tracer: Tracer,
  envelopes: readonly EventEnvelope[],
): Promise<readonly PublishOutcome[]> {
  const spans = envelopes.map((envelope) =>
    tracer.start({
      name: `publish ${envelope.type}`,
      kind: 'producer',
      parent: envelope.traceparent,
      attributes: {
        ...eventAttributes(envelope),
        'messaging.operation.name': 'publish',
        'messaging.operation.type': 'send',
        'messaging.batch.message_count': envelopes.length,
        'cloudevents.event_source': envelope.source,
      },
    }),
  )
  try {
    const traced = envelopes.map((envelope, at) => ({
      ...envelope,
      traceparent: spans[at]?.traceparent ?? envelope.traceparent,
    }))
    const outcomes = await bus.publish(traced)
    for (const [at, span] of spans.entries()) {
      const outcome = outcomes[at]?.outcome ?? 'failed'
      if (outcome !== 'accepted') span.fail(outcome, outcome)
    }
    return outcomes
  } catch (error) {
    for (const span of spans) span.fail(error)
    throw error
  } finally {
    for (const span of spans) span.end()
  }
}

/** Handlers whose every try is a span, under the publishing of its event. A batch that is rolled back shows its tries too. */
export function withProcessSpans<Schema>(
  handlers: readonly EventHandler<Schema>[],
  tracer: Tracer | undefined,
): readonly EventHandler<Schema>[] {
  if (tracer === undefined) return handlers
  return handlers.map((handler) => ({
    ...handler,
    handle: (tx, event) => {
      const facts: SpanFacts = {
        name: `process ${event.type}`,
        kind: 'consumer',
        parent: event.traceparent,
        attributes: {
          ...eventAttributes(event),
          'messaging.operation.name': 'process',
          'messaging.operation.type': 'process',
          'messaging.destination.subscription.name': handler.queue,
        },
      }
      return inSpan(tracer, facts, () => handler.handle(tx, event))
    },
  }))
}

function eventAttributes({ id, type, subject }: { id: string; type: string; subject: string }) {
  return {
    'messaging.system': 'cloudphone',
    'messaging.destination.name': type,
    'messaging.message.id': id,
    'cloudevents.event_id': id,
    'cloudevents.event_type': type,
    'cloudevents.event_subject': subject,
  }
}
