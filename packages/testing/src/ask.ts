import { Problem } from '@cloudphone/contracts/route'
import { ProblemError } from '@cloudphone/runtime/problem'

/** A request as a test words it. */
export interface Question {
  readonly method: string
  readonly path: string
  readonly token?: string | undefined
  /** Sent as JSON. */
  readonly body?: unknown
  readonly form?: FormData | undefined
  /** The Idempotency-Key. */
  readonly key?: string | undefined
  readonly headers?: Readonly<Record<string, string>> | undefined
}

/** An HTTP answer as it came. */
export interface Answer {
  readonly status: number
  readonly headers: Headers
  // biome-ignore lint/suspicious/noExplicitAny: the JSON of any route; the test says what it should be
  readonly body: any
}

/** Asks over HTTP; a refusal is an answer too. `body` is undefined when there is none. */
export async function ask(
  address: string,
  { method, path, token, body, form, key, headers }: Question,
): Promise<Answer> {
  const response = await fetch(`${address}${path}`, {
    method,
    headers: {
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...(key !== undefined && { 'idempotency-key': key }),
      ...headers,
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
    ...(form !== undefined && { body: form }),
  })
  const text = await response.text()
  return {
    status: response.status,
    headers: response.headers,
    body: text === '' ? undefined : JSON.parse(text),
  }
}

/** Gives a good answer back and throws a refusal as the ProblemError that it was. */
export function goodAnswer(answer: Answer): Answer {
  if (answer.status < 400) return answer
  const { status, code, detail, ...members } = Problem.parse(answer.body)
  throw new ProblemError({ status, code, detail, members })
}
