import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Agent, type Dispatcher } from 'undici'
import type { OpenDoor } from '../door.ts'

/** Node's own server and undici with nothing between them: no router, no checks, no headers of a proxy. */
export const openDoor: OpenDoor = async ({ upstream }) => {
  const agent = new Agent({ connections: 1_024, keepAliveTimeout: 30_000 })
  const server = createServer((request, response) => {
    const { host: _host, connection: _connection, ...headers } = request.headers
    const method = request.method as Dispatcher.HttpMethod
    agent.dispatch({ origin: upstream, method, path: request.url ?? '/', headers }, new Passing(response))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

class Passing implements Dispatcher.DispatchHandler {
  readonly #response: ServerResponse

  constructor(response: ServerResponse) {
    this.#response = response
  }

  onRequestStart(): void {
    // By this method undici knows a handler of today's kind.
  }

  onResponseStart(_controller: unknown, status: number, headers: IncomingHttpHeaders): void {
    this.#response.writeHead(status, headers)
  }

  onResponseData(_controller: unknown, chunk: Buffer): void {
    // Of the answers here every one is short: as one text it leaves with its head in one write.
    this.#response.end(chunk.toString('latin1'), 'latin1')
  }

  onResponseEnd(): void {
    // It left with the body.
  }

  onResponseError(_controller: unknown, error: Error): void {
    this.#response.destroy(error)
  }
}
