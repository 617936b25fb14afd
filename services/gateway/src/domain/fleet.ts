/* Terminology:
 * - fleet: every service that keeps a schema; each answers for itself, and this page puts the answers together
 */
import { type Caller, may } from '@cloudphone/contracts/access'
import { platformRoutes, type SagaView } from '@cloudphone/contracts/api/platform-api'
import type { PageOf, ResultOf } from '@cloudphone/contracts/route'
import { ServiceName, services } from '@cloudphone/contracts/services'
import { pageOf } from '@cloudphone/runtime/cursor'
import { common } from '@cloudphone/runtime/problem'
import type { ServiceClient } from '@cloudphone/runtime/service-client'

/** The services that keep a schema, in the order of their ports. */
export const statefulServices: readonly ServiceName[] = ServiceName.options.filter(
  (name) => services[name].database !== null,
)

type Routes = ReturnType<typeof platformRoutes>
type OutboxFigures = ResultOf<Routes['outbox']> & { readonly service: ServiceName }

export interface PageWanted {
  readonly limit: number
  readonly cursor?: string | undefined
}

interface SagasWanted extends PageWanted {
  readonly status?: SagaView['status'] | undefined
  readonly type?: string | undefined
  readonly userId?: string | undefined
  readonly stuck?: 'true' | 'false' | undefined
}

/** Lists over the whole platform. A service that does not answer makes a list fail: half of one would lie. */
export class Fleet {
  readonly #client: ServiceClient

  constructor(client: ServiceClient) {
    this.#client = client
  }

  /**
   * Sagas of all services, the newest first. All services sort by the same key (time, id), so one cursor names a place in
   * all of them: each is asked for a whole page from there on, and the first of the merged ones are shown.
   * @throws ProblemError `forbidden` for other people's without the right; `service_unavailable`.
   */
  async sagas(caller: Caller, wanted: SagasWanted): Promise<PageOf<SagaView>> {
    const mayAll = may(caller, 'sagas:any')
    if (!mayAll && wanted.userId !== undefined && wanted.userId !== caller.userId) {
      throw common.forbidden({ permission: 'sagas:any' })
    }
    const query = { ...wanted, tenantId: caller.tenantId, ...(!mayAll && { userId: caller.userId }) }
    const running = statefulServices.filter((name) => services[name].sagas.length > 0)
    const pages = await Promise.all(
      running.map((name) => this.#client.call(platformRoutes(name).listSagas, { query: defined(query) })),
    )
    const merged = pages.flatMap(({ items }) => items).sort(newestFirst)
    return mergedPage(pages, merged, wanted.limit, (saga) => `${Date.parse(saga.createdAt)}_${saga.sagaId}`)
  }

  /** How far behind the outbox of each service is. @throws ProblemError `service_unavailable`. */
  outboxes(): Promise<OutboxFigures[]> {
    return Promise.all(
      statefulServices.map(async (service) => ({
        ...(await this.#client.call(platformRoutes(service).outbox)),
        service,
      })),
    )
  }
}

/** The first of what was merged. There is more when some is left over, or when some service has a further page. */
export function mergedPage<Item>(
  pages: readonly PageOf<unknown>[],
  merged: readonly Item[],
  limit: number,
  idOf: (item: Item) => string,
): PageOf<Item> {
  const isMore = merged.length > limit || pages.some(({ nextCursor }) => nextCursor !== null)
  const last = merged[Math.min(limit, merged.length) - 1]
  const rows = merged.slice(0, limit)
  // pageOf takes one row too many as the sign that there is more.
  return pageOf(isMore && last !== undefined ? [...rows, last] : rows, rows.length, (row) => row, idOf)
}

function newestFirst(one: SagaView, other: SagaView): number {
  const byTime = Date.parse(other.createdAt) - Date.parse(one.createdAt)
  if (byTime !== 0) return byTime
  return one.sagaId < other.sagaId ? 1 : -1
}

/** Without the members that are undefined, as `exactOptionalPropertyTypes` wants it. */
export function defined<T extends object>(value: T): { [Key in keyof T]: Exclude<T[Key], undefined> } {
  const kept = Object.entries(value).filter(([, member]) => member !== undefined)
  return Object.fromEntries(kept) as { [Key in keyof T]: Exclude<T[Key], undefined> }
}
