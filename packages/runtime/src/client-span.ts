import { currentTraceparent, inSpan, type Tracer } from '@cloudphone/observe/trace'

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
  { method, origin, path, template }: OutgoingCall,
  send: () => Promise<Answer>,
): Promise<Answer> {
  if (tracer === undefined) return await send()
  const { hostname, port } = new URL(origin)
  const facts = {
    name: `${method} ${template}`,
    kind: 'client',
    parent: currentTraceparent(),
    attributes: {
      'http.request.method': method,
      'url.full': `${origin}${path.split('?', 1)[0]}`,
      'url.template': template,
      'server.address': hostname,
      'server.port': Number(port),
    },
  } as const
  return await inSpan(tracer, facts, async (span) => {
    const answer = await send()
    span?.note({ 'http.response.status_code': answer.statusCode })
    if (answer.statusCode >= 400) span?.fail(`HTTP ${answer.statusCode}`, String(answer.statusCode))
    return answer
  })
}
