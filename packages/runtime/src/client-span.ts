import {
  currentTraceparent,
  inSpan,
  type Span,
  type SpanFacts,
  type Traceparent,
  type Tracer,
} from '@cloudphone/observe/trace'

/** A call of another service, as its span tells it. */
export interface OutgoingCall {
  readonly method: string
  /** Such as `http://127.0.0.1:30002`. */
  readonly origin: string
  /** With its query, which the span leaves out. */
  readonly path: string
  /** The route's path with its parameters unfilled. */
  readonly template: string
}

/**
 * Makes a call of another service a span, from its sending to the head of the answer. `send` runs inside it: what
 * `currentTraceparent()` says there goes with the request.
 * @see https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span
 */
export async function inClientSpan<Answer extends { readonly statusCode: number }>(
  tracer: Tracer | undefined,
  call: OutgoingCall,
  send: () => Promise<Answer>,
): Promise<Answer> {
  if (tracer === undefined) return await send()
  return await inSpan(tracer, factsOf(call, currentTraceparent()), async (span) => {
    const answer = await send()
    span?.note({ 'http.response.status_code': answer.statusCode })
    if (answer.statusCode >= 400) span?.fail(`HTTP ${answer.statusCode}`, String(answer.statusCode))
    return answer
  })
}

/**
 * The same span for a call whose answer is not a promise: whoever gets it notes the status, and ends it. Undefined without
 * a tracer.
 */
export function startClientSpan(
  tracer: Tracer | undefined,
  call: OutgoingCall,
  parent: Traceparent | undefined,
): Span | undefined {
  return tracer?.start(factsOf(call, parent))
}

function factsOf(
  { method, origin, path, template }: OutgoingCall,
  parent: Traceparent | undefined,
): SpanFacts {
  const { hostname, port } = new URL(origin)
  return {
    name: `${method} ${template}`,
    kind: 'client',
    parent,
    attributes: {
      'http.request.method': method,
      'url.full': `${origin}${path.split('?', 1)[0]}`,
      'url.template': template,
      'server.address': hostname,
      'server.port': Number(port),
    },
  }
}
