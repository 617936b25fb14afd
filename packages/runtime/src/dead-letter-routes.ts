import type { Bus, DeadLetter } from '@cloudphone/bus/bus'
import {
  type Actor,
  type DeadLetterView,
  operatorRoutes,
  type Replay,
} from '@cloudphone/contracts/api/operator-api'
import type { ServiceName } from '@cloudphone/contracts/services'
import { subscriptions } from '@cloudphone/contracts/topology'
import type { AuditLog, Deed, RecordedReplay, ReplayedLetter } from './audit-log.ts'
import { decodeCursor, pageOf } from './cursor.ts'
import { type Binding, bind } from './http-server.ts'
import { defineProblems } from './problem.ts'

const problems = defineProblems({ dead_letter_not_found: [404, 'There is no dead letter {deadLetterId}.'] })

/** So many letters are named in the record of one replay. */
const MOST_NAMED = 1_000
const LONGEST_ERROR = 300

interface Sources {
  readonly service: ServiceName
  readonly bus: Bus
  readonly audit: AuditLog
}

interface Request {
  readonly actor: Actor
  readonly reason?: string | undefined
}

/** The routes on the dead letters of one service's queues. */
export function deadLetterBindings(sources: Sources): readonly Binding[] {
  const { bus, service } = sources
  const routes = operatorRoutes(service)
  return [
    bind(routes.listDeadLetters, async ({ query: { limit, cursor, queue } }) => {
      const after = decodeCursor(cursor)
      const rows = await deadLettersOf(bus, service, { limit: limit + 1, after, queue })
      return pageOf(rows, limit, briefly, ({ id }) => id)
    }),
    bind(routes.getDeadLetter, ({ params }) => show(sources, params.deadLetterId)),
    bind(routes.replayDeadLetter, ({ params, body }) => replayOne(sources, params.deadLetterId, body)),
    bind(routes.replayDeadLetters, ({ body }) => replayMany(sources, body)),
  ]
}

/** Dead letters of a service, or of one of its queues, in the order in which they died. */
export async function deadLettersOf(
  bus: Bus,
  service: ServiceName,
  { limit, after, queue }: { limit: number; after?: string | undefined; queue?: string | undefined },
): Promise<readonly DeadLetter[]> {
  const queues = queuesOf(service).filter((one) => queue === undefined || one === queue)
  const all = await Promise.all(
    queues.map((one) => bus.deadLetters.list({ queue: one, limit, ...(after !== undefined && { after }) })),
  )
  return all
    .flat()
    .sort((a, b) => (a.id < b.id ? -1 : 1))
    .slice(0, limit)
}

/** Only critical queues have dead letters; those of a former release may be left in one that is no longer critical. */
function queuesOf(service: ServiceName): readonly string[] {
  return subscriptions.filter((one) => one.service === service).map((one) => one.queue)
}

async function ownLetter({ bus, service }: Sources, id: string): Promise<DeadLetter | undefined> {
  const letter = await bus.deadLetters.get(id)
  return letter !== undefined && queuesOf(service).includes(letter.queue) ? letter : undefined
}

function briefly(letter: DeadLetter) {
  const { id, queue, eventId, eventType, attempts, diedAt } = letter
  return { id, queue, eventId, eventType, attempts, error: reasonOf(letter), diedAt: diedAt.toISOString() }
}

/** What was wrong, without the stack that the bus keeps with it: paths and code are our own business. */
function reasonOf({ error }: DeadLetter): string {
  return (error.split(/\n\s+at /, 1)[0] ?? '').trim()
}

async function show(sources: Sources, deadLetterId: string): Promise<DeadLetterView> {
  const letter = await ownLetter(sources, deadLetterId)
  if (letter === undefined) throw problems.dead_letter_not_found({ deadLetterId })
  const replays = await sources.audit.replaysOf(letter)
  return {
    ...briefly(letter),
    service: sources.service,
    firstFailedAt: letter.firstFailedAt.toISOString(),
    envelope: letter.envelope,
    history: [...replays.flatMap((replay) => pastOf(replay, letter.eventId)), deathOf(briefly(letter))],
  }
}

type Moment = DeadLetterView['history'][number]

function deathOf({ diedAt, attempts, error }: Pick<ReplayedLetter, 'diedAt' | 'attempts' | 'error'>): Moment {
  return { at: diedAt, what: 'died', attempts, error, actor: null, reason: null }
}

/** A death, and the replay that followed. */
function pastOf({ at, actor, reason, details }: RecordedReplay, eventId: string): Moment[] {
  const letter = details.letters.find((one) => one.eventId === eventId)
  const replayed: Moment = {
    ...{ at: at.toISOString(), what: 'replayed', attempts: null, error: null },
    ...{ actor, reason },
  }
  return letter === undefined ? [replayed] : [deathOf(letter), replayed]
}

async function replayOne(
  sources: Sources,
  deadLetterId: string,
  { actor, reason }: Request,
): Promise<Replay> {
  const { audit, bus, service } = sources
  const letter = await ownLetter(sources, deadLetterId)
  if (letter === undefined) return replayedBefore(sources, deadLetterId)
  const { queue, eventId } = letter
  const deed: Deed = {
    ...{ actor, reason, tenantId: null, verb: 'dead_letter.replay' as const, target: deadLetterId },
    details: { queue, letters: [named(letter)] },
  }
  const isOurs = await audit.record(
    deed,
    () => bus.deadLetters.replay(deadLetterId),
    (done) => (done ? `event ${eventId} is back in ${queue}` : 'somebody else had just replayed it'),
  )
  const last = await audit.replayOf(deadLetterId)
  const replayedAt = (last?.at ?? letter.diedAt).toISOString()
  return { outcome: isOurs ? 'replayed' : 'already_replayed', service, queue, eventId, replayedAt }
}

/** The letter is not there: because it was replayed, by whomever, or because it never was. */
async function replayedBefore({ audit, service }: Sources, deadLetterId: string): Promise<Replay> {
  const earlier = await audit.replayOf(deadLetterId)
  const letter = earlier?.details.letters.find(({ id }) => id === deadLetterId)
  if (earlier === undefined || letter === undefined) throw problems.dead_letter_not_found({ deadLetterId })
  return {
    ...{ outcome: 'already_replayed', service, queue: earlier.details.queue, eventId: letter.eventId },
    replayedAt: earlier.at.toISOString(),
  }
}

async function replayMany(
  { audit, bus, service }: Sources,
  { actor, reason, queue }: Request & { queue?: string | undefined },
): Promise<{ queue: string; replayed: number }[]> {
  const done: { queue: string; replayed: number }[] = []
  for (const one of queuesOf(service)) {
    if (queue !== undefined && one !== queue) continue
    const letters = await bus.deadLetters.list({ queue: one, limit: MOST_NAMED })
    if (letters.length === 0) continue
    const deed: Deed = {
      ...{ actor, reason, tenantId: null, verb: 'dead_letters.replay_all' as const, target: one },
      details: { queue: one, letters: letters.map(named) },
    }
    const replayed = await audit.record(
      deed,
      () => bus.deadLetters.replayAll({ queue: one }),
      (count) => `${count} put back`,
    )
    done.push({ queue: one, replayed })
  }
  return done
}

function named(letter: DeadLetter): ReplayedLetter {
  const { id, eventId, attempts, diedAt } = letter
  const error = reasonOf(letter).slice(0, LONGEST_ERROR)
  return { id, eventId, error, attempts, diedAt: diedAt.toISOString() }
}
