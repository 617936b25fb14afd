import { ExportResultCode } from '@opentelemetry/core'
import { type SpanExporter, TracerProvider } from '@opentelemetry/sdk-trace'
import { expect, test } from 'vitest'
import { silentLog } from './log.ts'
import { openMetrics } from './metrics.ts'
import { openSpanQueue } from './span-queue.ts'

type Told = Parameters<SpanExporter['export']>[1]

function queueTo(exporter: SpanExporter) {
  const metrics = openMetrics('test')
  const queue = openSpanQueue({ exporter, collector: 'nowhere:4318', log: silentLog(), metrics })
  const tracer = new TracerProvider({ spanProcessors: [queue.processor] }).getTracer('test')
  return {
    queue,
    end: (count: number) => {
      for (let n = 0; n < count; n += 1) tracer.startSpan('work').end()
    },
    dropped: async () =>
      Object.fromEntries(
        [...(await metrics.render()).matchAll(/^trace_spans_dropped_total\{reason="(\w+)".*\} (\d+)$/gm)].map(
          ([, reason, count]) => [reason, Number(count)],
        ),
      ),
  }
}

test('spans that do not fit are dropped and counted, and nobody waits for them', async () => {
  const hanging: Told[] = []
  const { queue, end, dropped } = queueTo({
    export: (_spans, told) => void hanging.push(told),
    shutdown: async () => undefined,
  })
  // One batch of 512 is under way, 8,192 wait.
  end(512 + 8_192 + 7)
  expect(await dropped()).toEqual({ queue_full: 7 })
  const closed = queue.close()
  // Real time: the limit is that of the exporter, which takes no clock.
  const startedMs = performance.now()
  await closed
  // It would hang for 30 s by OpenTelemetry's own measure.
  expect(performance.now() - startedMs).toBeLessThan(10_000)
  for (const told of hanging) told({ code: ExportResultCode.SUCCESS })
})

test('at its end nothing is sent to a collector that was away', async () => {
  let asked = 0
  const { queue, end, dropped } = queueTo({
    export: (_spans, told) => {
      asked += 1
      told({ code: ExportResultCode.FAILED })
    },
    shutdown: async () => undefined,
  })
  end(512)
  await expect.poll(dropped).toEqual({ export_failed: 512 })
  end(100)
  await queue.close()
  end(1)
  expect(asked).toBe(1)
  expect(await dropped()).toEqual({ export_failed: 612 })
})
