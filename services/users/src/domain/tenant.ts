import type { TenantId } from '@cloudphone/contracts/id'

/** Those who share phones, people and bills; the one that runs the platform looks after all. */
export interface TenantRecord {
  readonly id: TenantId
  readonly slug: string
  readonly name: string
  readonly status: 'active' | 'suspended'
  readonly isPlatform: boolean
  readonly createdAt: Date
}
