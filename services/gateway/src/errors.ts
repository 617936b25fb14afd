import { defineProblems } from '@cloudphone/runtime/problem'

/** What the gateway itself refuses; everything else is said by the service behind it. */
export const problems = defineProblems({
  websocket_only: [400, 'This address speaks WebSocket only: connect with the transport websocket.'],
  saga_not_found: [404, 'There is no saga {sagaId}.'],
  dead_letter_not_found: [404, 'There is no dead letter {deadLetterId}.'],
  unknown_queue: [422, 'There is no queue {queue}. Those with dead letters: {known}.'],
})
