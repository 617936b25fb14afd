import { once } from 'node:events'
import { createServer } from 'node:http'
import { json } from 'node:stream/consumers'
import { z } from 'zod'

/** A span as a collector gets it, with what tests look at. */
export interface CollectedSpan {
  readonly traceId: string
  readonly spanId: string
  /** Undefined for the first of its trace. */
  readonly parentSpanId: string | undefined
  readonly name: string
  readonly kind: 'internal' | 'server' | 'client' | 'producer' | 'consumer' | undefined
  /** `service.name` of who made it. */
  readonly service: unknown
  readonly attributes: Readonly<Record<string, unknown>>
  readonly hasFailed: boolean
}

/** Keeps the spans that it is sent by OTLP over HTTP with JSON. */
export interface Collector {
  readonly endpoint: string
  /** In the order in which they came. */
  readonly spans: readonly CollectedSpan[]
  /** With which status it answers from now on; one that is not 200 takes nothing. */
  answer(status: number): void
  close(): Promise<void>
}

const Attributes = z
  .array(z.object({ key: z.string(), value: z.record(z.string(), z.unknown()) }))
  .transform((list) => Object.fromEntries(list.map(({ key, value }) => [key, Object.values(value)[0]])))
// @see https://github.com/open-telemetry/opentelemetry-proto/blob/v1.7.0/opentelemetry/proto/trace/v1/trace.proto
const TracesData = z.object({
  resourceSpans: z.array(
    z.object({
      resource: z.object({ attributes: Attributes }),
      scopeSpans: z.array(
        z.object({
          spans: z.array(
            z.object({
              traceId: z.string().regex(/^[0-9a-f]{32}$/),
              spanId: z.string().regex(/^[0-9a-f]{16}$/),
              parentSpanId: z.string().optional(),
              name: z.string(),
              kind: z.int(),
              attributes: Attributes,
              status: z.object({ code: z.int() }),
            }),
          ),
        }),
      ),
    }),
  ),
})
const kinds = [undefined, 'internal', 'server', 'client', 'producer', 'consumer'] as const
const FAILED = 2

/** Opens a collector on a port of 127.0.0.1 that the system chooses. */
export async function openCollector(): Promise<Collector> {
  const spans: CollectedSpan[] = []
  let status = 200
  const server = createServer((request, response) => {
    json(request)
      .then((body) => {
        if (status === 200 && request.url === '/v1/traces') spans.push(...spansIn(body))
        response.writeHead(status, { 'content-type': 'application/json' }).end('{}')
      })
      .catch((error: unknown) => response.writeHead(400).end(String(error)))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the collector has no port')
  return {
    endpoint: `http://127.0.0.1:${address.port}`,
    spans,
    answer: (next) => {
      status = next
    },
    close: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

function spansIn(body: unknown): CollectedSpan[] {
  return TracesData.parse(body).resourceSpans.flatMap(({ resource, scopeSpans }) =>
    scopeSpans.flatMap((scope) =>
      scope.spans.map(({ traceId, spanId, parentSpanId, name, kind, attributes, status: { code } }) => ({
        ...{ traceId, spanId, name, attributes, kind: kinds[kind], hasFailed: code === FAILED },
        parentSpanId: parentSpanId === '' ? undefined : parentSpanId,
        service: resource.attributes['service.name'],
      })),
    ),
  )
}
