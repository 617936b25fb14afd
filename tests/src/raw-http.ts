import { once } from 'node:events'
import { connect } from 'node:net'

/** What came back on a connection until the other side closed it. */
export interface RawAnswer {
  /** Of each answer, in their order. */
  readonly statuses: readonly number[]
  readonly text: string
  /** The JSON of the first answer, if it has one. */
  readonly problem:
    | { readonly code?: string; readonly detail?: string; readonly requestId?: string }
    | undefined
}

/**
 * Sends bytes as they are and reads until the other side closes. Nothing of ours stands between: what no HTTP client
 * sends can be sent. The last request of `text` must ask for `connection: close`, or be so broken that nothing follows.
 */
export async function sendRaw(url: string, text: string): Promise<RawAnswer> {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  const parts: Buffer[] = []
  socket.on('data', (part: Buffer) => parts.push(part))
  // A reset after the answer is a close too.
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => resolve())
    socket.on('error', () => resolve())
  })
  await once(socket, 'connect')
  socket.write(text, 'latin1')
  await closed
  const answer = Buffer.concat(parts).toString()
  return {
    statuses: [...answer.matchAll(/HTTP\/1\.[01] (\d{3}) /g)].map(([, status]) => Number(status)),
    text: answer,
    problem: problemIn(answer),
  }
}

function problemIn(answer: string): RawAnswer['problem'] {
  const json = /\{"[^\r\n]*\}/.exec(answer)?.[0]
  return json === undefined ? undefined : JSON.parse(json)
}
