import { type Caller, may } from '@cloudphone/contracts/access'
import type { DeviceId, UserId } from '@cloudphone/contracts/id'
import type { Database } from '@cloudphone/db/database'
import { common } from '@cloudphone/runtime/problem'
import type { BillingSchema, UsageRow } from '../db/schema.ts'
import { listUsage, sumUsage, type UsageSum } from '../db/usage-repo.ts'

export type { UsageRow, UsageSum }

interface Wanted {
  readonly userId?: UserId | undefined
  readonly deviceId?: DeviceId | undefined
}

/** What was used, and what it cost. */
export class UsageService {
  readonly #database: Database<BillingSchema>

  constructor(deps: { database: Database<BillingSchema> }) {
    this.#database = deps.database
  }

  /** Records of the caller, or of the user that an operator names. @throws ProblemError `forbidden`. */
  async list(
    caller: Caller,
    query: Wanted & { beforeOrdinal: number | undefined; limit: number },
  ): Promise<UsageRow[]> {
    const { beforeOrdinal, limit } = query
    return await listUsage(this.#database.kysely, { ...filterOf(caller, query), beforeOrdinal, limit })
  }

  /** The sum of the same. @throws ProblemError `forbidden`. */
  async total(caller: Caller, query: Wanted): Promise<UsageSum> {
    return await sumUsage(this.#database.kysely, filterOf(caller, query))
  }
}

function filterOf(caller: Caller, { userId = caller.userId, deviceId }: Wanted) {
  if (userId !== caller.userId && !may(caller, 'billing:any')) {
    throw common.forbidden({ permission: 'billing:any' })
  }
  return { tenantId: caller.tenantId, userId, deviceId }
}
