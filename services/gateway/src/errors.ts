import { defineProblems } from '@cloudphone/runtime/problem'

/** What the gateway itself refuses; everything else is said by the service behind it. */
export const problems = defineProblems({
  malformed_request: [400, 'This is not HTTP/1.1 as it should be: {reason}.'],
  websocket_only: [400, 'This address speaks WebSocket only: connect with the transport websocket.'],
  foreign_tenant: [403, 'The audit log of the tenant {tenantId} is not yours to read.'],
  saga_not_found: [404, 'There is no saga {sagaId}.'],
  dead_letter_not_found: [404, 'There is no dead letter {deadLetterId}.'],
  request_too_slow: [408, 'The head of the request did not come in {limitMs} ms.'],
  body_too_slow: [408, 'The body came with less than {bytesPerSecond} bytes a second over {windowMs} ms.'],
  url_too_long: [414, 'The URL is longer than the {limitBytes} bytes allowed here.'],
  unknown_queue: [422, 'There is no queue {queue}. Those with dead letters: {known}.'],
  too_many_connections: [429, 'Your address has more than {limit} connections open.'],
  headers_too_large: [
    431,
    'The head of the request has more than {limitBytes} bytes or {limitCount} headers.',
  ],
})
