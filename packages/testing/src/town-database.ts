import { EMBEDDED_BUS_MIGRATIONS } from '@cloudphone/bus/embedded/embedded-bus'
import { type ServiceName, services } from '@cloudphone/contracts/services'
import { withClient } from '@cloudphone/db/client'
import { APP_NOW_MIGRATIONS, migrate } from '@cloudphone/db/migrate'
import { provision, type ServiceDatabase } from '@cloudphone/db/provision'
import type { DatabaseTarget } from '@cloudphone/db/target'
import { silentLog } from '@cloudphone/observe/log'
import { testPostgres } from './postgres-door.ts'
import { type Clone, cloneTemplate, ensureTemplate, makeTimeMovable, moveTime } from './template.ts'

const TEMPLATE = 'template_town'
const log = silentLog()
const names = Object.keys(services) as ServiceName[]
const schemas = [...names.filter((name) => services[name].database !== null), 'bus']

/** The database of a town: every service with its own role and schema, as in an installation. */
export interface TownDatabase extends Clone {
  /** By schema: those of the services, and `bus`. */
  readonly targets: Readonly<Record<string, ServiceDatabase>>
  /** Moves the `app_now()` of all schemas. */
  moveTime(ms: number): Promise<void>
  /** How many events the consumers of these services have been done with. */
  heard(services: ReadonlySet<string>): Promise<number>
}

/**
 * Clones the provisioned template (built once per run) and provisions the clone, which then lacks only the rights and
 * settings of the database itself.
 */
export async function openTownDatabase(): Promise<TownDatabase> {
  const adminUrl = await testPostgres()
  await ensureTemplate(adminUrl, TEMPLATE, (url) => build(adminUrl, url))
  const clone = await cloneTemplate(adminUrl, TEMPLATE)
  const targets = await provision({ adminUrl, layout: { [clone.database]: schemas }, log })
  return {
    ...{ ...clone, targets },
    moveTime: (ms) => moveTime(clone.url, schemas, ms),
    heard: (of) => countHeard(clone.url, of),
  }
}

async function build(adminUrl: DatabaseTarget, url: DatabaseTarget): Promise<void> {
  const targets = await provision({ adminUrl, layout: { [TEMPLATE]: schemas }, log })
  await Promise.all(
    Object.values(targets).map(async (target) => {
      const directories = [APP_NOW_MIGRATIONS, ...(target.schema === 'bus' ? [EMBEDDED_BUS_MIGRATIONS] : [])]
      await migrate({ ...target, directories, log })
      await makeTimeMovable(url, target.schema)
    }),
  )
}

async function countHeard(url: DatabaseTarget, of: ReadonlySet<string>): Promise<number> {
  const counts = schemas
    .filter((schema) => of.has(schema))
    .map((schema) => `(select count(*) from ${schema}.inbox)`)
  return await withClient(url, 'test fixture', async (client) => {
    const { rows } = await client.query<{ heard: string }>(`select ${['0', ...counts].join(' + ')} as heard`)
    return Number(rows[0]?.heard)
  })
}
