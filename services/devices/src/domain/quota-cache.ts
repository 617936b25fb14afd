/* Terminology:
 * - entry: limits and use of a user or a tenant, as the users service said them last
 * - fresh entry: one that is at most 60 s old; an expired one is kept for the time in which nobody can be asked
 */
import type { Cache } from '@cloudphone/cache/cache'
import { QuotaLimits, QuotaUse, ReadQuota } from '@cloudphone/contracts/api/quota-api'
import { TenantId, type UserId } from '@cloudphone/contracts/id'
import type { Clock } from '@cloudphone/observe/clock'
import { ProblemError } from '@cloudphone/runtime/problem'
import type { ServiceClient } from '@cloudphone/runtime/service-client'
import { z } from 'zod'
import type { Telemetry } from '../telemetry.ts'

export const FRESH_MS = 60_000
/** So long an expired entry is good for the time in which the users service does not answer. */
const KEPT_MS = 86_400_000
/** An entry refuses by itself so long after it was read: whoever gives something back waits no longer for it to be seen. */
const REFUSES_MS = 2_000

/** What a new phone takes, beside being one. */
export interface PhoneNeed {
  readonly cpuCores: number
  readonly memoryMb: number
  readonly storageMb: number
}

interface Book {
  readonly limits: QuotaLimits
  readonly used: QuotaUse
}

export interface KnownQuota {
  readonly tenantId: TenantId
  readonly user: Book
  readonly tenant: Book
}

/** Where an answer comes from. */
export type Source = 'cache' | 'users' | 'expired'

export interface Excess {
  readonly whose: 'user' | 'tenant'
  readonly resource: keyof QuotaUse
  readonly limit: number
  readonly used: number
  readonly asked: number
}

export interface CacheStatistics {
  readonly hits: number
  readonly misses: number
  /** Answers of an expired entry, while the users service did not answer. */
  readonly expired: number
  /** Hits of all answers, 0 to 1. */
  readonly hitRate: number
}

interface Entry extends Book {
  /** Milliseconds since 1970; 0 for one that is known to be out of date. */
  readonly readAt: number
}
interface UserEntry extends Entry {
  readonly tenantId: TenantId
}

/**
 * What the users service said of quota, for 60 s. It answers checks at once and refuses early; what is really taken is
 * decided by the reservation at the users service. Losing an update here costs an answer that is 60 s old, never a limit.
 */
export class QuotaCache {
  readonly #entries: Pick<Cache, 'get' | 'set' | 'delete'>
  readonly #client: Pick<ServiceClient, 'call'>
  readonly #clock: Pick<Clock, 'now'>
  readonly #telemetry: Telemetry
  readonly #reading = new Map<UserId, Promise<KnownQuota>>()
  readonly #counts = { hits: 0, misses: 0, expired: 0 }

  constructor(deps: {
    entries: Pick<Cache, 'get' | 'set' | 'delete'>
    client: Pick<ServiceClient, 'call'>
    clock: Pick<Clock, 'now'>
    telemetry: Telemetry
  }) {
    this.#entries = deps.entries
    this.#client = deps.client
    this.#clock = deps.clock
    this.#telemetry = deps.telemetry
  }

  /**
   * A user's quota: of a fresh entry; else of the users service; if that does not answer, of an expired entry.
   * @throws ProblemError `service_unavailable` when there is not even that, `user_not_found`.
   */
  async quotaOf(userId: UserId): Promise<KnownQuota & { source: Source }> {
    const kept = await this.#kept(userId)
    if (kept !== undefined && this.#ageOf(kept) <= FRESH_MS)
      return { ...kept, source: this.#count('hits', 'cache') }
    try {
      const read = await this.refresh(userId)
      return { ...read, source: this.#count('misses', 'users') }
    } catch (error) {
      if (kept === undefined || !isAway(error)) throw error
      return { ...kept, source: this.#count('expired', 'expired') }
    }
  }

  /** Whether a new phone fits, and if not which limit is in its way. As `quotaOf`. */
  async check(
    userId: UserId,
    need: PhoneNeed,
  ): Promise<{ excess: Excess | undefined; quota: KnownQuota; source: Source }> {
    const { source, ...quota } = await this.quotaOf(userId)
    return { excess: excessOf(quota, need), quota, source }
  }

  /** The limit that refuses a new phone by what was read a moment ago; undefined when the users service must be asked. */
  async refusal(userId: UserId, need: PhoneNeed): Promise<Excess | undefined> {
    const kept = await this.#kept(userId)
    if (kept === undefined || this.#ageOf(kept) > REFUSES_MS) return undefined
    const excess = excessOf(kept, need)
    if (excess !== undefined) this.#count('hits', 'cache')
    return excess
  }

  /** What is known though nobody can be asked, however old. */
  async lastKnown(userId: UserId): Promise<KnownQuota | undefined> {
    const kept = await this.#kept(userId)
    if (kept !== undefined) this.#count('expired', 'expired')
    return kept
  }

  /** Asks the users service, once for all who ask at the same time. @throws ProblemError as it answers. */
  refresh(userId: UserId): Promise<KnownQuota> {
    const reading = this.#reading.get(userId)
    if (reading !== undefined) return reading
    const read = this.#read(userId).finally(() => this.#reading.delete(userId))
    this.#reading.set(userId, read)
    return read
  }

  /** Counts a phone that was just reserved, before anybody asks again. */
  async addPhone(userId: UserId, need: PhoneNeed): Promise<void> {
    const kept = await this.#kept(userId)
    if (kept === undefined) return
    const { tenantId, user, tenant, readAt, tenantReadAt } = kept
    await this.#keepUser(userId, { ...user, used: plus(user.used, need), tenantId, readAt })
    await this.#keepTenant(tenantId, { ...tenant, used: plus(tenant.used, need), readAt: tenantReadAt })
  }

  /** The use of a user has changed in a way that is not known here: the next one asks. */
  async expire(userId: UserId): Promise<void> {
    const kept = await this.#kept(userId)
    if (kept !== undefined) await this.#keepUser(userId, { ...kept.user, tenantId: kept.tenantId, readAt: 0 })
  }

  /** The limits have changed: the old ones hold for nothing any more, not even while nobody can be asked. */
  async forgetUser(userId: UserId): Promise<void> {
    await this.#entries.delete(keyOfUser(userId))
  }

  async forgetTenant(tenantId: TenantId): Promise<void> {
    await this.#entries.delete(keyOfTenant(tenantId))
  }

  statistics(): CacheStatistics {
    const { hits, misses, expired } = this.#counts
    const all = hits + misses + expired
    return { ...this.#counts, hitRate: all === 0 ? 0 : hits / all }
  }

  async #read(userId: UserId): Promise<KnownQuota> {
    const { user, tenant } = await this.#client.call(ReadQuota, { params: { userId } })
    const readAt = this.#clock.now().getTime()
    const { tenantId } = tenant
    await this.#keepUser(userId, { limits: user.limits, used: user.used, tenantId, readAt })
    await this.#keepTenant(tenantId, { limits: tenant.limits, used: tenant.used, readAt })
    return { tenantId, user, tenant }
  }

  async #kept(userId: UserId): Promise<(KnownQuota & { readAt: number; tenantReadAt: number }) | undefined> {
    const user = parsed(userEntry, await this.#entries.get(keyOfUser(userId)))
    if (user === undefined) return undefined
    const tenant = parsed(tenantEntry, await this.#entries.get(keyOfTenant(user.tenantId)))
    if (tenant === undefined) return undefined
    return { tenantId: user.tenantId, user, tenant, readAt: user.readAt, tenantReadAt: tenant.readAt }
  }

  async #keepUser(userId: UserId, { limits, used, tenantId, readAt }: UserEntry): Promise<void> {
    await this.#entries.set(keyOfUser(userId), JSON.stringify({ limits, used, tenantId, readAt }), KEPT_MS)
  }

  async #keepTenant(tenantId: TenantId, { limits, used, readAt }: Entry): Promise<void> {
    await this.#entries.set(keyOfTenant(tenantId), JSON.stringify({ limits, used, readAt }), KEPT_MS)
  }

  /** The older of the two entries counts. */
  #ageOf({ readAt, tenantReadAt }: { readAt: number; tenantReadAt: number }): number {
    return this.#clock.now().getTime() - Math.min(readAt, tenantReadAt)
  }

  #count<Is extends Source>(outcome: 'hits' | 'misses' | 'expired', source: Is): Is {
    this.#counts[outcome] += 1
    this.#telemetry.quotaAnswered(source)
    return source
  }
}

const keyOfUser = (userId: UserId) => `quota:user:${userId}`
const keyOfTenant = (tenantId: TenantId) => `quota:tenant:${tenantId}`

/** Entries are written by this class alone; what another release wrote in another shape counts as absent. */
function parsed<Shape extends z.ZodType>(
  shape: Shape,
  text: string | undefined,
): z.output<Shape> | undefined {
  if (text === undefined) return undefined
  const read = shape.safeParse(JSON.parse(text))
  return read.success ? read.data : undefined
}

const tenantEntry = z.object({ limits: QuotaLimits, used: QuotaUse, readAt: z.number() })
const userEntry = tenantEntry.extend({ tenantId: TenantId })

/** True when the users service did not answer at all: what it answers is never overruled. */
export function isAway(error: unknown): boolean {
  return error instanceof ProblemError && error.code === 'service_unavailable'
}

function plus(used: QuotaUse, need: PhoneNeed): QuotaUse {
  return {
    devices: used.devices + 1,
    cpu: used.cpu + need.cpuCores,
    memory: used.memory + need.memoryMb,
    storage: used.storage + need.storageMb,
    sessions: used.sessions,
  }
}

/** The first limit that a new phone would pass: the user's, then the tenant's. */
export function excessOf({ user, tenant }: KnownQuota, need: PhoneNeed): Excess | undefined {
  for (const [whose, { limits, used }] of [
    ['user', user],
    ['tenant', tenant],
  ] as const) {
    const rows = [
      ['devices', 1, limits.maxDevices],
      ['cpu', need.cpuCores, limits.maxCpu],
      ['memory', need.memoryMb, limits.maxMemory],
      ['storage', need.storageMb, limits.maxStorage],
    ] as const
    for (const [resource, asked, limit] of rows) {
      if (used[resource] + asked > limit) return { whose, resource, limit, used: used[resource], asked }
    }
  }
  return undefined
}
