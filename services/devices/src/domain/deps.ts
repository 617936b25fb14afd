import type { Ids } from '@cloudphone/contracts/id'
import type { Database } from '@cloudphone/db/database'
import type { Clock } from '@cloudphone/observe/clock'
import type { CrashPoints } from '@cloudphone/observe/crash-point'
import type { Outbox } from '@cloudphone/outbox/outbox'
import type { Audit } from '@cloudphone/runtime/audit-log'
import type { ServiceClient } from '@cloudphone/runtime/service-client'
import type { DevicesSettings } from '../config.ts'
import type { DevicesSchema } from '../db/schema.ts'
import type { Providers } from '../providers/open-providers.ts'
import type { Telemetry } from '../telemetry.ts'

/** What the parts of this service stand on. */
export interface Deps {
  readonly database: Database<DevicesSchema>
  readonly outbox: Outbox
  readonly audit: Audit
  readonly client: ServiceClient
  readonly providers: Providers
  readonly clock: Clock
  readonly ids: Ids
  readonly settings: DevicesSettings
  readonly telemetry: Telemetry
  readonly crash: CrashPoints
}
