import { Agent, request } from 'node:http'
import { Me } from '@cloudphone/contracts/api/users-api'
import type { Client } from '@cloudphone/sdk/client'
import { until } from '../until.ts'
import type { Asker, Case } from './cases.ts'

/** How a request of the fuzz was answered. */
interface Outcome {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly text: string
}

/** What nobody outside should read: a stack, a file's place, SQL or what PostgreSQL says about it. */
const inside =
  /node_modules|\.[cm]?[jt]s:\d+|\n\s+at \S+|\bselect\b[^"]*\bfrom\b|\binsert into\b|\bupdate \w+ set\b|(relation|column|constraint) \\?"|violates|duplicate key|syntax error at|byte sequence|invalid input syntax|ECONN|ENOENT|\/(home|work|tmp|usr|root|var)\//i

/** No answer within this is a hang, on however slow a machine. */
const hangMs = 30_000

/** Sends cases to a platform as its people, and says what is wrong with the answers. */
export class Judge {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 8 })
  readonly #url: URL
  readonly #clients: Readonly<Record<Exclude<Asker, 'nobody'>, Client>>
  /** How many answers there were, by status. */
  readonly seen = new Map<number, number>()

  constructor(url: string, clients: Readonly<Record<Exclude<Asker, 'nobody'>, Client>>) {
    this.#url = new URL(url)
    this.#clients = clients
  }

  /** @throws Error that says what is wrong with the answer. */
  async try(one: Case): Promise<void> {
    const outcome = await this.#send(one)
    this.seen.set(outcome.status, (this.seen.get(outcome.status) ?? 0) + 1)
    const wrong = faultOf(one, outcome)
    if (wrong === undefined) return
    const { mutation, asker, method, path, headers, body } = one
    const sent = JSON.stringify({ mutation, asker, method, path, headers, body: body?.slice(0, 2_000) })
    throw new Error(`${wrong}\nsent ${sent}\ngot ${outcome.status} ${outcome.text.slice(0, 1_000)}`)
  }

  close(): void {
    this.#agent.destroy()
  }

  /** The fuzz ends sessions and changes keys, also those of its own people: then they sign in again. */
  async #send(one: Case): Promise<Outcome> {
    if (one.asker === 'nobody' || 'authorization' in one.headers) return this.#plainly(one, undefined)
    const client = this.#clients[one.asker]
    const first = await this.#plainly(one, await client.accessToken())
    if (first.status !== 401) return first
    // A new signing key is known everywhere in two seconds.
    await until('a new token to be good', () => client.call(Me).catch(() => undefined))
    return this.#plainly(one, await client.accessToken())
  }

  /** As it is: `fetch` would tidy path and head up. */
  #plainly({ method, path, headers, body }: Case, token: string | undefined): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      const asked = request({
        ...{ hostname: this.#url.hostname, port: this.#url.port, agent: this.#agent, method, path },
        headers: {
          ...(token !== undefined && { authorization: `Bearer ${token}` }),
          ...(body !== undefined && { 'content-length': String(Buffer.byteLength(body)) }),
          ...headers,
        },
        signal: AbortSignal.timeout(hangMs),
      })
      asked.once('error', (error) => reject(new Error(`no answer to ${method} ${path}`, { cause: error })))
      asked.once('upgrade', (_response, socket) => {
        socket.destroy()
        reject(new Error(`${method} ${path} became a WebSocket`))
      })
      asked.once('response', (response) => {
        const parts: Buffer[] = []
        response.on('data', (part: Buffer) => parts.push(part))
        response.once('error', reject)
        response.once('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: Object.fromEntries(
              Object.entries(response.headers).map(([name, value]) => [name, String(value)]),
            ),
            text: Buffer.concat(parts).toString(),
          }),
        )
      })
      asked.end(body)
    })
  }
}

function faultOf({ operation, method }: Case, { status, headers, text }: Outcome): string | undefined {
  if (status >= 500) return 'an error of ours'
  if (status < 400) {
    const isNamed = method !== operation.method || operation.statuses.includes(status)
    return isNamed ? undefined : 'a success that the document does not name'
  }
  if (inside.test(text)) return 'our inside shows'
  if (!headers['content-type']?.startsWith('application/problem+json')) return 'no problem document'
  // An answer to HEAD has the head only.
  if (method === 'HEAD') return undefined
  const problem = JSON.parse(text) as Record<string, unknown>
  const { type, title, detail, code, requestId } = problem
  const texts = [type, title, detail, code, requestId]
  if (!texts.every((one) => typeof one === 'string' && one !== '')) return 'a problem without all its members'
  if (problem.status !== status || problem.success !== false) return 'a problem that contradicts its head'
  if (type !== `urn:cloudphone:problem:${String(code)}`) return 'a problem of two types'
  const fromHead = headers['x-request-id']
  return fromHead === undefined || fromHead === requestId
    ? undefined
    : 'a problem with another request id than its head'
}
