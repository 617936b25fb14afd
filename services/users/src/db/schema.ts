import type { Permission, Role } from '@cloudphone/contracts/access'
import type { TenantId, UserId } from '@cloudphone/contracts/id'
import type { JWK } from 'jose'
import type { ColumnType, Generated, JSONColumnType } from 'kysely'

type Audit = ColumnType<Date, never, never>

interface TenantsTable {
  id: TenantId
  slug: string
  name: string
  is_platform: Generated<boolean>
  created_at: Audit
}

interface UsersTable {
  id: UserId
  tenant_id: TenantId
  email: string
  name: string
  password_hash: string
  role: Role
  status: Generated<'active' | 'suspended' | 'deleted'>
  suspend_reason: string | null
  email_verified_at: Date | null
  version: Generated<number>
  token_epoch: Generated<number>
  created_at: Audit
  updated_at: Generated<Date>
}

interface SessionsTable {
  id: string
  user_id: UserId
  created_at: Audit
  last_used_at: Date
  expires_at: Date
  revoked_at: Date | null
  revoke_reason: 'logout' | 'reuse' | 'revoked' | 'user' | null
}

interface RefreshTokensTable {
  token_hash: Buffer
  session_id: string
  expires_at: Date
  used_at: Date | null
  created_at: Audit
}

interface ApiKeysTable {
  id: string
  user_id: UserId
  name: string
  prefix: string
  key_hash: Buffer
  scopes: Permission[] | null
  created_at: Audit
  expires_at: Date | null
  last_used_at: Date | null
}

interface SigningKeysTable {
  kid: string
  private_jwk: JSONColumnType<JWK & object>
  public_jwk: JSONColumnType<JWK & object>
  active: boolean
  created_at: Audit
  activates_at: Date | null
  gone_at: Date | null
}

interface RevocationsTable {
  id: Generated<string>
  tx: Generated<string>
  kind: 'session' | 'user' | 'keys'
  subject: string | null
  epoch: number | null
  created_at: Audit
  forget_at: Date
}

interface QuotasTable {
  user_id: UserId
  max_devices: number | null
  max_cpu: number | null
  max_memory: number | null
  max_storage: number | null
  max_sessions: number | null
  devices: Generated<number>
  cpu: Generated<number>
  memory: Generated<number>
  storage: Generated<number>
  sessions: Generated<number>
  told: Generated<string[]>
  updated_at: Generated<Date>
}

interface TenantQuotasTable extends Omit<QuotasTable, 'user_id'> {
  tenant_id: TenantId
  version: Generated<number>
}

interface QuotaReservationsTable {
  reservation_id: string
  user_id: UserId | null
  state: 'reserved' | 'committed' | 'released'
  devices: Generated<number>
  cpu: number
  memory: number
  storage: number
  sessions: Generated<number>
  expires_at: Date | null
  released_at: Date | null
  release_reason: 'released' | 'expired' | null
  created_at: Audit
  updated_at: Generated<Date>
}

interface RecoveryCodesTable {
  user_id: UserId
  code_hash: Buffer
  used_at: Generated<Date | null>
}

/** The tables of the schema `users`, and no other. */
export interface UsersSchema {
  tenants: TenantsTable
  users: UsersTable
  sessions: SessionsTable
  refresh_tokens: RefreshTokensTable
  api_keys: ApiKeysTable
  signing_keys: SigningKeysTable
  revocations: RevocationsTable
  recovery_codes: RecoveryCodesTable
  quotas: QuotasTable
  tenant_quotas: TenantQuotasTable
  quota_reservations: QuotaReservationsTable
}
