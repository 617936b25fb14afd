/* Terminology:
 * - owner: the service of a dead letter's queue. A letter's id does not name it, so all are asked and one knows it.
 */
import type { Caller } from '@cloudphone/contracts/access'
import {
  type DeadLetter,
  type DeadLetterView,
  operatorRoutes,
  type Replay,
} from '@cloudphone/contracts/api/operator-api'
import type { PageOf } from '@cloudphone/contracts/route'
import type { ServiceName } from '@cloudphone/contracts/services'
import { subscriptions } from '@cloudphone/contracts/topology'
import { ProblemError } from '@cloudphone/runtime/problem'
import type { ServiceClient } from '@cloudphone/runtime/service-client'
import { problems } from '../errors.ts'
import { defined, mergedPage, type PageWanted, statefulServices } from './fleet.ts'

/** Thousands of letters may have to be put back. */
const replayAllTimeoutMs = 60_000

type Letter = DeadLetter & { readonly service: ServiceName }
type Routes = ReturnType<typeof operatorRoutes>

/** What operators see and do by hand over the whole platform. */
export class Operations {
  readonly #client: ServiceClient

  constructor(client: ServiceClient) {
    this.#client = client
  }

  /**
   * Dead letters of all services or of one queue, in the order in which they died: the first is where it began.
   * @throws ProblemError `unknown_queue`, `service_unavailable`.
   */
  async deadLetters(wanted: PageWanted & { readonly queue?: string | undefined }): Promise<PageOf<Letter>> {
    const pages = await Promise.all(
      ownersOf(wanted.queue).map(async (service) => {
        const route = operatorRoutes(service).listDeadLetters
        const found = await this.#client.call(route, { query: defined(wanted) })
        return { ...found, items: found.items.map((letter) => ({ ...letter, service })) }
      }),
    )
    const merged = pages.flatMap(({ items }) => items).sort((one, other) => (one.id < other.id ? -1 : 1))
    return mergedPage(pages, merged, wanted.limit, ({ id }) => id)
  }

  /** @throws ProblemError `dead_letter_not_found`, `service_unavailable`. */
  deadLetter(deadLetterId: string): Promise<DeadLetterView> {
    return this.#owner(deadLetterId, (routes) =>
      this.#client.call(routes.getDeadLetter, { params: { deadLetterId } }),
    )
  }

  /** Puts one back. @throws ProblemError `dead_letter_not_found`, `service_unavailable`. */
  replay(caller: Caller, deadLetterId: string, reason: string | undefined): Promise<Replay> {
    const body = { actor: actorOf(caller), ...defined({ reason }) }
    return this.#owner(deadLetterId, (routes) =>
      this.#client.call(routes.replayDeadLetter, { params: { deadLetterId }, body }),
    )
  }

  /**
   * Puts all back, or those of one queue. When a service fails the others have done their part: asking again is harmless.
   * @throws ProblemError `unknown_queue`, `service_unavailable`.
   */
  async replayAll(
    caller: Caller,
    { queue, reason }: { queue?: string | undefined; reason?: string | undefined },
  ): Promise<{ replayed: number; queues: { queue: string; replayed: number }[] }> {
    const body = { actor: actorOf(caller), ...defined({ queue, reason }) }
    const answers = await Promise.allSettled(
      ownersOf(queue).map((service) =>
        this.#client.call(operatorRoutes(service).replayDeadLetters, {
          ...{ body, timeoutMs: replayAllTimeoutMs },
        }),
      ),
    )
    const queues = answers.flatMap((answer) => {
      if (answer.status === 'rejected') throw answer.reason
      return answer.value
    })
    return { queues, replayed: queues.reduce((sum, one) => sum + one.replayed, 0) }
  }

  /**
   * The answer of the one service that knows the letter. Where none does but one was silent, nobody can say that there is
   * no such letter: then its silence is the answer.
   */
  async #owner<Result>(deadLetterId: string, ask: (routes: Routes) => Promise<Result>): Promise<Result> {
    const answers = await Promise.allSettled(statefulServices.map((service) => ask(operatorRoutes(service))))
    const found = answers.find((answer) => answer.status === 'fulfilled')
    if (found !== undefined) return found.value
    const failure = answers.find((answer) => answer.status === 'rejected' && !isNotFound(answer.reason))
    if (failure?.status === 'rejected') throw failure.reason
    throw problems.dead_letter_not_found({ deadLetterId })
  }
}

function isNotFound(error: unknown): boolean {
  return error instanceof ProblemError && error.code === 'dead_letter_not_found'
}

function actorOf({ userId, tenantId }: Caller): Pick<Caller, 'userId' | 'tenantId'> {
  return { userId, tenantId }
}

/** The services to ask: all, or the one of a queue. */
function ownersOf(queue: string | undefined): readonly ServiceName[] {
  if (queue === undefined) return statefulServices
  const owner = subscriptions.find((one) => one.queue === queue)?.service
  if (owner !== undefined) return [owner]
  const known = subscriptions.filter(({ critical }) => critical).map((one) => one.queue)
  throw problems.unknown_queue({ queue, known: known.join(', ') })
}
