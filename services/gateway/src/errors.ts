import { defineProblems } from '@cloudphone/runtime/problem'

/** What the gateway itself refuses; everything else is said by the service behind it. */
export const problems = defineProblems({
  websocket_only: [400, 'This address speaks WebSocket only: connect with the transport websocket.'],
  saga_not_found: [404, 'There is no saga {sagaId}.'],
})
