/* Traces to a collector: the only place that knows OpenTelemetry's SDK, loaded only when a collector is named. Nothing is
 * registered with OpenTelemetry's globals, so that two platforms can live in one process; what is current is kept by
 * `trace.ts`. */
import {
  type Span as OtelSpan,
  type Tracer as OtelTracer,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  trace,
} from '@opentelemetry/api'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import {
  defaultResource,
  detectResources,
  resourceAttributesEnvDetector,
  resourceFromAttributes,
} from '@opentelemetry/resources'
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  ParentBasedSampler,
  type Sampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace'
import type { Logger } from './log.ts'
import type { Metrics } from './metrics.ts'
import { openSpanQueue } from './span-queue.ts'
import {
  newTraceparent,
  type Span,
  type SpanAttributes,
  type SpanFacts,
  type Tracer,
  wellFormed,
} from './trace.ts'

/** As `OTEL_TRACES_SAMPLER` spells them. @see https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ */
export type SamplerName =
  | 'always_on'
  | 'always_off'
  | 'traceidratio'
  | 'parentbased_always_on'
  | 'parentbased_always_off'
  | 'parentbased_traceidratio'

export interface TracingOptions {
  /** Of the collector, such as `http://localhost:4318`; `/v1/traces` is added. */
  readonly endpoint: string
  /** Instead of each service's own name. */
  readonly serviceName?: string | undefined
  readonly sampler: SamplerName
  /** Of the traces that begin here, 0 to 1; for the two samplers by ratio. */
  readonly ratio: number
  readonly log: Logger
  readonly metrics: Metrics
}

/** The way of spans out of this process. */
export interface Tracing {
  tracerOf(service: { name: string; instance: number }): Tracer
  /** Sends what waits, for 3 s at most. Spans that end later are lost. Idempotent. */
  close(): Promise<void>
}

/** Opens the export of traces by OTLP over HTTP with JSON. A collector that is away costs spans, and nothing else. */
export function openTracing(options: TracingOptions): Tracing {
  const { endpoint, serviceName, log, metrics } = options
  const url = `${endpoint.replace(/\/+$/, '')}/v1/traces`
  // Its tries and their pauses end within this time, so that none of them outlives the process's drain by much.
  const exporter = new OTLPTraceExporter({ url, timeoutMillis: 3_000 })
  const queue = openSpanQueue({ exporter, collector: new URL(url).host, log, metrics })
  const sampler = samplerOf(options)
  const shared = defaultResource().merge(detectResources({ detectors: [resourceAttributesEnvDetector] }))
  return {
    tracerOf({ name, instance }) {
      const resource = shared.merge(
        resourceFromAttributes({
          'service.name': serviceName ?? name,
          'service.namespace': 'cloudphone',
          'service.instance.id': `${name}-${instance}.${process.pid}`,
        }),
      )
      const provider = new TracerProvider({ resource, sampler, spanProcessors: [queue.processor] })
      return tracerOver(provider.getTracer('cloudphone'), options)
    },
    close: () => queue.close(),
  }
}

function samplerOf({ sampler, ratio }: Pick<TracingOptions, 'sampler' | 'ratio'>): Sampler {
  switch (sampler) {
    case 'always_on':
      return new AlwaysOnSampler()
    case 'always_off':
      return new AlwaysOffSampler()
    case 'traceidratio':
      return new TraceIdRatioBasedSampler(ratio)
    case 'parentbased_always_on':
      return new ParentBasedSampler({ root: new AlwaysOnSampler() })
    case 'parentbased_always_off':
      return new ParentBasedSampler({ root: new AlwaysOffSampler() })
    case 'parentbased_traceidratio':
      // Those that are not taken never come here (`tracerOver`).
      return new ParentBasedSampler({ root: new AlwaysOnSampler() })
  }
}

const kinds: Readonly<Record<SpanFacts['kind'], SpanKind>> = {
  server: SpanKind.SERVER,
  client: SpanKind.CLIENT,
  producer: SpanKind.PRODUCER,
  consumer: SpanKind.CONSUMER,
  internal: SpanKind.INTERNAL,
}

function tracerOver(
  tracer: OtelTracer,
  { sampler, ratio }: Pick<TracingOptions, 'sampler' | 'ratio'>,
): Tracer {
  const heedsParent = sampler.startsWith('parentbased_')
  return {
    start({ name, kind, parent, attributes = {} }) {
      const cause = wellFormed(parent)
      // With one trace in a hundred taken, the others should cost nothing: the SDK takes 5 us to decide to record nothing.
      if (heedsParent && cause !== undefined && !isSampled(cause)) return unsampled(cause)
      // The same for traces that begin here: who is not taken is told so by the flag, and only the others reach the SDK.
      if (cause === undefined && sampler === 'parentbased_traceidratio' && Math.random() >= ratio) {
        return unsampled(newTraceparent('00'))
      }
      const context =
        cause === undefined ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, contextOf(cause))
      return new ExportedSpan(tracer.startSpan(name, { kind: kinds[kind], attributes }, context))
    },
  }
}

// Where the fields stand in a well-formed traceparent: `00-<32>-<16>-<2>`.
function contextOf(traceparent: string) {
  return {
    traceId: traceparent.slice(3, 35),
    spanId: traceparent.slice(36, 52),
    traceFlags: isSampled(traceparent) ? TraceFlags.SAMPLED : TraceFlags.NONE,
    isRemote: true,
  }
}

function isSampled(traceparent: string): boolean {
  return (Number.parseInt(traceparent.slice(53), 16) & TraceFlags.SAMPLED) !== 0
}

const nothing = (): void => undefined

/** Of a trace that nobody takes: what is caused goes on under the same cause. */
function unsampled(cause: string): Span {
  return { traceparent: cause, isRecording: false, note: nothing, fail: nothing, end: nothing }
}

class ExportedSpan implements Span {
  readonly traceparent: string
  readonly isRecording: boolean
  readonly #span: OtelSpan

  constructor(span: OtelSpan) {
    const { traceId, spanId, traceFlags } = span.spanContext()
    this.#span = span
    this.isRecording = span.isRecording()
    this.traceparent = `00-${traceId}-${spanId}-0${traceFlags & TraceFlags.SAMPLED}`
  }

  note(attributes: SpanAttributes): void {
    this.#span.setAttributes(attributes)
  }

  fail(error: unknown, type: string = typeOf(error)): void {
    const message = error instanceof Error ? error.message : String(error)
    this.#span.setAttribute('error.type', type)
    this.#span.setStatus({ code: SpanStatusCode.ERROR, message })
  }

  end(): void {
    this.#span.end()
  }
}

/** `_OTHER` is what the conventions say when nothing better is known. */
function typeOf(error: unknown): string {
  if (!(error instanceof Error)) return '_OTHER'
  return 'code' in error && typeof error.code === 'string' ? error.code : error.name
}
