import type { Caller } from '@cloudphone/contracts/access'
import { type AuditEntry, type AuditFilter, auditRoutes } from '@cloudphone/contracts/api/audit-api'
import type { PageOf } from '@cloudphone/contracts/route'
import type { ServiceClient } from '@cloudphone/runtime/service-client'
import { problems } from '../errors.ts'
import { defined, mergedPage, type PageWanted, statefulServices } from './fleet.ts'

/** Of each service at a time while all is read. */
const exportPage = 200

/** The audit logs of all services as one. */
export class AuditSearch {
  readonly #client: ServiceClient

  constructor(client: ServiceClient) {
    this.#client = client
  }

  /**
   * What was changed in all services, the newest first: in the caller's tenant; for callers of the platform's tenant in
   * all of them, and the platform's own.
   * @throws ProblemError `foreign_tenant`, `service_unavailable`.
   */
  async page(caller: Caller, wanted: AuditFilter & PageWanted): Promise<PageOf<AuditEntry>> {
    const query = defined({ ...wanted, tenantId: tenantFor(caller, wanted.tenantId) })
    const pages = await Promise.all(
      statefulServices.map((service) => this.#client.call(auditRoutes(service).listAudit, { query })),
    )
    const merged = pages.flatMap(({ items }) => items).sort((one, other) => (one.id < other.id ? 1 : -1))
    return mergedPage(pages, merged, wanted.limit, ({ id }) => id)
  }

  /**
   * Every record of a search, a page in memory at a time. What is added meanwhile is newer, and so not in it.
   * @throws as `page`, at any page.
   */
  async *all(caller: Caller, filter: AuditFilter): AsyncIterable<readonly AuditEntry[]> {
    let cursor: string | undefined
    do {
      const { items, nextCursor } = await this.page(caller, { ...filter, limit: exportPage, cursor })
      yield items
      cursor = nextCursor ?? undefined
    } while (cursor !== undefined)
  }
}

function tenantFor(caller: Caller, wanted: AuditFilter['tenantId']): AuditFilter['tenantId'] {
  if (caller.isPlatform === true) return wanted
  if (wanted === undefined || wanted === caller.tenantId) return caller.tenantId
  throw problems.foreign_tenant({ tenantId: wanted })
}
