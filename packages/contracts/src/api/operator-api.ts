/* What operators do by hand when something is stuck.
 *
 * A saga's verbs go to the service that keeps it, by the prefix of its id. Dead letters are those of the queues of one
 * service each: the gateway asks all services, and the one whose letter it is answers.
 */
import { z } from 'zod'
import { TenantId, UserId } from '../id.ts'
import { item, list, PageQuery, route } from '../route.ts'
import { ServiceName } from '../services.ts'
import { BySaga, SagaView } from './platform-api.ts'

/** Why an operator does something, in his own words. */
const Reason = z
  .string()
  .trim()
  .min(1)
  .max(500)
  .regex(/^[^\p{Cc}]*$/u, 'must not hold control characters')

/** On whose behalf the gateway asks a service. */
const Actor = z.strictObject({ userId: UserId, tenantId: TenantId })
export type Actor = z.infer<typeof Actor>

const ByDeadLetter = z.strictObject({
  deadLetterId: z.guid('must be the UUID of a dead letter').transform((id) => id.toLowerCase()),
})
const Queue = z.string().min(1).max(200)
const DeadLetterQuery = PageQuery.extend({ queue: Queue.optional() })

export const DeadLetter = z.object({
  id: z.string(),
  queue: z.string(),
  eventId: z.string(),
  eventType: z.string(),
  error: z.string(),
  attempts: z.int(),
  diedAt: z.iso.datetime(),
})
export type DeadLetter = z.infer<typeof DeadLetter>

export const DeadLetterView = DeadLetter.extend({
  service: ServiceName,
  firstFailedAt: z.iso.datetime(),
  /** The event as it was published; whatever it was, when it was no envelope. */
  envelope: z.unknown().meta({ description: 'The event in its CloudEvents envelope.' }),
  /** Its earlier deaths in this queue, each with the replay that followed, and the last one; oldest first. */
  history: z.array(
    z.object({
      at: z.iso.datetime(),
      what: z.enum(['died', 'replayed']),
      attempts: z.int().nullable(),
      error: z.string().nullable(),
      /** The operator who replayed it. */
      actor: z.string().nullable(),
      reason: z.string().nullable(),
    }),
  ),
})
export type DeadLetterView = z.infer<typeof DeadLetterView>

/** What a replay did. Asked a second time it does nothing and says so. */
export const Replay = z.object({
  outcome: z.enum(['replayed', 'already_replayed']),
  service: ServiceName,
  queue: z.string(),
  /** The event goes back under its own id. */
  eventId: z.string(),
  replayedAt: z.iso.datetime(),
})
export type Replay = z.infer<typeof Replay>

const ReplayedQueue = z.object({ queue: z.string(), replayed: z.int() })

const replayBody = z.strictObject({ reason: Reason.optional() })
const replayAllBody = z.strictObject({ queue: Queue.optional(), reason: Reason.optional() })

/** Routes that every service with a database serves for operators, through the gateway. */
export function operatorRoutes(service: ServiceName) {
  const inside = { service, access: { kind: 'service' } } as const
  return {
    retrySaga: route({ ...RetrySaga, name: `${service}.retrySaga`, service }),
    skipSagaStep: route({ ...SkipSagaStep, name: `${service}.skipSagaStep`, service }),
    turnSagaBack: route({ ...TurnSagaBack, name: `${service}.turnSagaBack`, service }),
    listDeadLetters: route({
      ...inside,
      name: `${service}.listDeadLetters`,
      method: 'GET',
      path: '/internal/dead-letters',
      summary: 'Dead letters of this service’s queues, in the order in which they died.',
      query: DeadLetterQuery,
      answer: list(DeadLetter),
    }),
    getDeadLetter: route({
      ...inside,
      name: `${service}.getDeadLetter`,
      method: 'GET',
      path: '/internal/dead-letters/:deadLetterId',
      summary: 'One dead letter of this service’s queues.',
      params: ByDeadLetter,
      answer: item(DeadLetterView),
      problems: ['dead_letter_not_found'],
    }),
    replayDeadLetter: route({
      ...inside,
      name: `${service}.replayDeadLetter`,
      method: 'POST',
      path: '/internal/dead-letters/:deadLetterId/replay',
      summary: 'Puts a dead letter of this service back into its queue.',
      params: ByDeadLetter,
      body: replayBody.extend({ actor: Actor }),
      answer: item(Replay),
      problems: ['dead_letter_not_found'],
    }),
    replayDeadLetters: route({
      ...inside,
      name: `${service}.replayDeadLetters`,
      method: 'POST',
      path: '/internal/dead-letters/replay',
      summary: 'Puts the dead letters of one or of all queues of this service back.',
      body: replayAllBody.extend({ actor: Actor }),
      answer: item(z.array(ReplayedQueue)),
    }),
  }
}

const sagaProblems = ['saga_not_found', 'illegal_saga_operation']

export const RetrySaga = route({
  name: 'retrySaga',
  service: 'gateway',
  method: 'POST',
  path: '/api/sagas/:sagaId/retry',
  summary: 'Tries a waiting, stuck or quarantined saga again at once. Audited.',
  access: { kind: 'user', permission: 'sagas:operate' },
  audit: 'saga.retry',
  params: BySaga,
  body: z.strictObject({ reason: Reason.optional() }),
  answer: item(SagaView),
  problems: sagaProblems,
})

export const SkipSagaStep = route({
  name: 'skipSagaStep',
  service: 'gateway',
  method: 'POST',
  path: '/api/sagas/:sagaId/skip',
  summary:
    'Gives up the step at which a saga stands: an undo, or a step past the point of no return that is not the last. Audited.',
  access: { kind: 'user', permission: 'sagas:operate' },
  audit: 'saga.skip',
  params: BySaga,
  body: z.strictObject({
    /** As the operator saw it: refused when the saga has moved on since. */
    step: z
      .string()
      .min(1)
      .max(100)
      .regex(/^[^\p{Cc}]*$/u, 'must not hold control characters'),
    reason: Reason,
  }),
  answer: item(SagaView),
  problems: sagaProblems,
})

export const TurnSagaBack = route({
  name: 'turnSagaBack',
  service: 'gateway',
  method: 'POST',
  path: '/api/sagas/:sagaId/turn-back',
  summary: 'Makes a saga undo what it did, as its deadline would; the reason becomes its error. Audited.',
  access: { kind: 'user', permission: 'sagas:operate' },
  audit: 'saga.turn_back',
  params: BySaga,
  body: z.strictObject({ reason: Reason }),
  answer: item(SagaView),
  problems: sagaProblems,
})

export const ListDeadLetters = route({
  name: 'listDeadLetters',
  service: 'gateway',
  method: 'GET',
  path: '/api/dead-letters',
  summary: 'Dead letters of all services, in the order in which they died.',
  access: { kind: 'user', permission: 'platform:inspect' },
  query: DeadLetterQuery,
  answer: list(DeadLetter.extend({ service: ServiceName })),
  problems: ['unknown_queue'],
})

export const GetDeadLetter = route({
  name: 'getDeadLetter',
  service: 'gateway',
  method: 'GET',
  path: '/api/dead-letters/:deadLetterId',
  summary: 'One dead letter: the event, why its consumer refused it, and what became of it before.',
  access: { kind: 'user', permission: 'platform:inspect' },
  params: ByDeadLetter,
  answer: item(DeadLetterView),
  problems: ['dead_letter_not_found'],
})

export const ReplayDeadLetter = route({
  name: 'replayDeadLetter',
  service: 'gateway',
  method: 'POST',
  path: '/api/dead-letters/:deadLetterId/replay',
  summary:
    'Puts a dead letter back into its queue under its own event id. Harmless when repeated: it says that it was done. Audited.',
  access: { kind: 'user', permission: 'platform:operate' },
  audit: 'dead_letter.replay',
  params: ByDeadLetter,
  body: replayBody,
  answer: item(Replay),
  problems: ['dead_letter_not_found'],
})

export const ReplayDeadLetters = route({
  name: 'replayDeadLetters',
  service: 'gateway',
  method: 'POST',
  path: '/api/dead-letters/replay',
  summary: 'Puts all dead letters back, or those of one queue; answers how many. Audited.',
  access: { kind: 'user', permission: 'platform:operate' },
  audit: 'dead_letters.replay_all',
  body: replayAllBody,
  answer: item(z.object({ replayed: z.int(), queues: z.array(ReplayedQueue) })),
  problems: ['unknown_queue'],
})
