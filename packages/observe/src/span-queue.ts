import { TraceFlags } from '@opentelemetry/api'
import { type ExportResult, ExportResultCode } from '@opentelemetry/core'
import { BatchSpanProcessor, type SpanExporter, type SpanProcessor } from '@opentelemetry/sdk-trace'
import { systemClock } from './clock.ts'
import type { Logger } from './log.ts'
import type { Metrics } from './metrics.ts'

/** Spans on their way to the collector. */
export interface SpanQueue {
  readonly processor: SpanProcessor
  close(): Promise<void>
}

/** Some 10 MB at most: a second of a busy platform, several times over. */
const QUEUE_SPANS = 8_192
const BATCH_SPANS = 512
const DELAY_MS = 1_000
const CLOSE_MS = 3_000

/**
 * A bounded queue before an exporter. OpenTelemetry's own batches and bounds too, but does not say what it drops; this one
 * counts every span that is lost, full queue or failed export, and says once per outage that the collector is away.
 */
export function openSpanQueue({
  exporter,
  collector,
  log,
  metrics,
}: {
  exporter: SpanExporter
  /** Its name in the log. */
  collector: string
  log: Logger
  metrics: Metrics
}): SpanQueue {
  const exported = metrics.counter({
    name: 'trace_spans_exported_total',
    help: 'Spans that the collector has taken.',
  })
  const dropped = metrics.counter({
    name: 'trace_spans_dropped_total',
    help: 'Spans lost: the queue was full, or the collector did not take them.',
    labels: ['reason'],
  })
  let waiting = 0
  let isAway = false
  let isLosing = false
  let closing: Promise<void> | undefined

  const lost = (reason: 'queue_full' | 'export_failed', count: number, error?: Error): void => {
    dropped.inc({ reason }, count)
    if (isLosing) return
    isLosing = true
    log.warn({ event: 'trace.spans_dropped', collector, reason, err: error })
  }
  const settled = (count: number, { code, error }: ExportResult): void => {
    isAway = code === ExportResultCode.FAILED
    if (isAway) {
      lost('export_failed', count, error)
      return
    }
    exported.inc(count)
    if (isLosing) log.info({ event: 'trace.spans_taken_again', collector })
    isLosing = false
  }
  const batches = new BatchSpanProcessor({
    ...{ maxQueueSize: QUEUE_SPANS, maxExportBatchSize: BATCH_SPANS, scheduledDelayMillis: DELAY_MS },
    exporter: {
      export(spans, done) {
        waiting -= spans.length
        const told = (result: ExportResult): void => {
          settled(spans.length, result)
          done(result)
        }
        // A collector that was away a moment ago is not worth the drain's time.
        if (closing !== undefined && isAway) told({ code: ExportResultCode.FAILED })
        else exporter.export(spans, told)
      },
      shutdown: () => exporter.shutdown(),
    },
  })
  const close = async (): Promise<void> => {
    const over = new AbortController()
    const flushed = batches.shutdown().catch(() => undefined) // counted and logged above
    await Promise.race([flushed, systemClock.sleep(CLOSE_MS, over.signal).catch(() => undefined)])
    over.abort()
  }
  return {
    processor: {
      onStart: () => undefined,
      onEnd(span) {
        if (closing !== undefined || (span.spanContext().traceFlags & TraceFlags.SAMPLED) === 0) return
        if (waiting >= QUEUE_SPANS) lost('queue_full', 1)
        else {
          waiting += 1
          batches.onEnd(span)
        }
      },
      forceFlush: () => batches.forceFlush(),
      shutdown: () => batches.shutdown(),
    },
    close() {
      closing ??= close()
      return closing
    },
  }
}
