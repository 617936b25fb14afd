import type { Duplex } from 'node:stream'
import { type ProblemError, renderProblem } from './problem.ts'

/** Answers where there is no request: on the bare connection, which ends with it. */
export function writeProblem(socket: Duplex, problem: ProblemError): void {
  const { status, document } = renderProblem(problem, 'none')
  const body = JSON.stringify(document)
  const head = [
    `HTTP/1.1 ${status} ${document.title}`,
    'content-type: application/problem+json',
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
    'cache-control: no-store',
  ]
  socket.on('error', () => socket.destroy())
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy())
}
