import type { Caller } from '@cloudphone/contracts/access'
import type { Ids, TenantId } from '@cloudphone/contracts/id'
import type { Database, Tx } from '@cloudphone/db/database'
import type { Audit } from '@cloudphone/runtime/audit-log'
import type { UsersSchema } from '../db/schema.ts'
import {
  findTenant,
  insertTenant,
  listTenants,
  memberIds,
  moveTenant,
  renameTenant,
} from '../db/tenant-repo.ts'
import { problems } from '../errors.ts'
import type { UsersTelemetry } from '../telemetry.ts'
import type { InvitationService } from './invitation-service.ts'
import type { Revocations } from './revocations.ts'
import type { TenantRecord } from './tenant.ts'

/** Tenants, for who runs the platform. All of a suspended tenant's accounts are suspended as long as it is. */
export class TenantService {
  readonly #database: Database<UsersSchema>
  readonly #audit: Audit
  readonly #invitations: InvitationService
  readonly #revocations: Revocations
  readonly #ids: Ids
  readonly #telemetry: UsersTelemetry

  constructor(deps: {
    database: Database<UsersSchema>
    audit: Audit
    invitations: InvitationService
    revocations: Revocations
    ids: Ids
    telemetry: UsersTelemetry
  }) {
    this.#database = deps.database
    this.#audit = deps.audit
    this.#invitations = deps.invitations
    this.#revocations = deps.revocations
    this.#ids = deps.ids
    this.#telemetry = deps.telemetry
  }

  /** Makes a tenant and invites its first administrator. @throws ProblemError `tenant_slug_taken`, `email_taken`. */
  async create(
    caller: Caller,
    { slug, name, adminEmail }: { slug: string; name: string; adminEmail: string },
  ): Promise<TenantRecord> {
    const tenant = await this.#database.transaction(async (tx) => {
      const made = await insertTenant(tx, { id: this.#ids.next<'tenant'>(), slug, name })
      if (made === undefined) throw problems.tenant_slug_taken({ slug })
      await this.#invitations.inviteInto(tx, {
        ...{ email: adminEmail, role: 'admin', tenantId: made.id, invitedBy: caller.userId },
      })
      const after = { slug, name, adminEmail }
      await this.#audit.add(tx, { verb: 'tenant.create', target: made.id, tenantId: made.id, after })
      return made
    })
    this.#telemetry.tenantChanged({ tenantId: tenant.id, what: 'made' })
    return tenant
  }

  /** @throws ProblemError `tenant_not_found`. */
  async get(tenantId: TenantId): Promise<TenantRecord> {
    const tenant = await findTenant(this.#database.kysely, tenantId)
    if (tenant === undefined) throw problems.tenant_not_found({ tenantId })
    return tenant
  }

  /** All tenants, the newest first; one more than `limit` when there are more. */
  list(page: { beforeId: string | undefined; limit: number }): Promise<TenantRecord[]> {
    return listTenants(this.#database.kysely, page)
  }

  /** @throws ProblemError `tenant_not_found`. */
  async rename(tenantId: TenantId, name: string): Promise<TenantRecord> {
    const tenant = await this.#database.transaction(async (tx) => {
      const before = await findTenant(tx, tenantId)
      const renamed = await renameTenant(tx, tenantId, name)
      const change = { before: { name: before?.name }, after: { name } }
      if (renamed !== undefined) {
        await this.#audit.add(tx, { verb: 'tenant.rename', target: tenantId, tenantId, ...change })
      }
      return renamed
    })
    if (tenant === undefined) throw problems.tenant_not_found({ tenantId })
    this.#telemetry.tenantChanged({ tenantId, what: 'renamed' })
    return tenant
  }

  /** Locks all its accounts out; again is no error. @throws ProblemError `tenant_not_found`, `platform_tenant`. */
  async suspend(tenantId: TenantId): Promise<TenantRecord> {
    const moved = await this.#database.transaction(async (tx) => {
      const suspended = await moveTenant(tx, tenantId, 'suspended')
      if (suspended === undefined) return undefined
      for (const userId of await memberIds(tx, tenantId)) await this.#revocations.revokeUser(tx, userId)
      await this.#moved(tx, tenantId, 'tenant.suspend')
      return suspended
    })
    if (moved !== undefined) this.#telemetry.tenantChanged({ tenantId, what: 'suspended' })
    else this.#audit.nothingChanged()
    const tenant = moved ?? (await this.get(tenantId))
    if (tenant.isPlatform) throw problems.platform_tenant()
    return tenant
  }

  /** Lets its accounts in again; of an active tenant nothing is changed. @throws ProblemError `tenant_not_found`. */
  async activate(tenantId: TenantId): Promise<TenantRecord> {
    const moved = await this.#database.transaction(async (tx) => {
      const activated = await moveTenant(tx, tenantId, 'active')
      if (activated !== undefined) await this.#moved(tx, tenantId, 'tenant.activate')
      return activated
    })
    if (moved !== undefined) this.#telemetry.tenantChanged({ tenantId, what: 'activated' })
    else this.#audit.nothingChanged()
    return moved ?? this.get(tenantId)
  }

  async #moved(
    tx: Tx<UsersSchema>,
    tenantId: TenantId,
    verb: 'tenant.suspend' | 'tenant.activate',
  ): Promise<void> {
    const [active, suspended] = [{ status: 'active' }, { status: 'suspended' }]
    const change =
      verb === 'tenant.suspend' ? { before: active, after: suspended } : { before: suspended, after: active }
    await this.#audit.add(tx, { verb, target: tenantId, tenantId, ...change })
  }
}
