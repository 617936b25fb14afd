import { createHash, createHmac } from 'node:crypto'
import type { Logger } from '@cloudphone/observe/log'
import type pg from 'pg'
import { withClient } from './client.ts'
import { type DatabaseTarget, describeTarget, redactTarget, retarget } from './target.ts'

/** The databases to have, and whose schemas lie in each: `{ cloudphone_core: ['users', 'devices'] }`. */
export type DatabaseLayout = Readonly<Record<string, readonly string[]>>

/** The layout of a whole installation: billing keeps its books apart, read models apart from both. */
const defaultLayout: DatabaseLayout = {
  cloudphone_core: ['users', 'devices', 'apps', 'scheduler', 'notifications', 'media', 'bus'],
  cloudphone_billing: ['billing'],
  cloudphone_analytics: ['analytics'],
}

export interface ProvisionOptions {
  /** A role that may create roles and databases; whichever database it names is only connected to. */
  adminUrl: DatabaseTarget
  layout?: DatabaseLayout
  /** From which the roles' passwords are derived; the admin's password when absent. */
  roleSecret?: string
  log: Logger
}

/** Where a service keeps its rows, as the role it connects with. */
export interface ServiceDatabase {
  url: DatabaseTarget
  database: string
  schema: string
  role: string
}

/**
 * Makes sure that every database of the layout exists, with a role and a schema per service: the role owns
 * its schema, finds it first (`search_path` set in that database), and has no right in a neighbour's.
 * May run any number of times and in several processes at once. Returns each service's target by name.
 *
 * Passwords are an HMAC of the role's name under the admin's password, so there is no further secret to
 * keep or to hand to a split deployment; changing the admin's password changes them at the next start.
 */
export async function provision(options: ProvisionOptions): Promise<Record<string, ServiceDatabase>> {
  const layout = options.layout ?? defaultLayout
  const services = planOf(layout, options)
  await withClient(options.adminUrl, 'cloudphone provision', async (admin) => {
    // Advisory locks count per database: everybody who provisions meets in the admin's.
    await admin.query('select pg_advisory_lock(hashtextextended($1, 0))', ['cloudphone.provision'])
    const created = await ensureDatabases(admin, options.adminUrl, Object.keys(layout))
    await ensureRoles(admin, services)
    await Promise.all(
      Object.keys(layout).map((database) =>
        ensureSchemas(
          retarget(options.adminUrl, { database }),
          services.filter((service) => service.database === database),
        ),
      ),
    )
    if (created.length > 0) options.log.info({ event: 'db.provisioned', databases: created })
  })
  return Object.fromEntries(services.map(({ password: _, ...service }) => [service.schema, service]))
}

/** The targets `provision` answers, without connecting: for a process whose database is provisioned already. */
export function serviceDatabases(
  options: Pick<ProvisionOptions, 'adminUrl' | 'layout' | 'roleSecret'>,
): Record<string, ServiceDatabase> {
  return Object.fromEntries(
    planOf(options.layout ?? defaultLayout, options).map(({ password: _, ...service }) => [
      service.schema,
      service,
    ]),
  )
}

interface PlannedService extends ServiceDatabase {
  password: string
}

function planOf(
  layout: DatabaseLayout,
  { adminUrl, roleSecret }: Pick<ProvisionOptions, 'adminUrl' | 'roleSecret'>,
): PlannedService[] {
  const secret = roleSecret ?? describeTarget(adminUrl).password
  if (secret === '') {
    throw new Error(
      `Database URL ${redactTarget(adminUrl)} has no password to derive the services' from: put one into it, or set the role secret`,
    )
  }
  const services = Object.entries(layout).flatMap(([database, schemas]) =>
    schemas.map((schema) => {
      // Roles belong to the whole cluster, which may serve others: hence the prefix.
      const role = `cloudphone_${schema}`
      const password = createHmac('sha256', secret).update(role).digest('base64url')
      return { database, schema, role, password, url: retarget(adminUrl, { database, user: role, password }) }
    }),
  )
  const names = [...Object.keys(layout), ...services.map(({ schema }) => schema)]
  const odd = names.find((name) => !/^[a-z][a-z0-9_]{0,50}$/.test(name))
  if (odd !== undefined) throw new Error(`Database layout: "${odd}" is not a name of a-z, 0-9 and _`)
  const twice = services.find((one, at) => services.findIndex(({ schema }) => schema === one.schema) !== at)
  if (twice !== undefined) throw new Error(`Database layout: schema "${twice.schema}" appears twice`)
  return services
}

async function ensureDatabases(
  admin: pg.Client,
  adminUrl: DatabaseTarget,
  names: readonly string[],
): Promise<string[]> {
  const { rows } = await admin.query<{ name: string }>(
    'select datname as name from pg_database where datname = any($1)',
    [names],
  )
  const missing = names.filter((name) => !rows.some((row) => row.name === name))
  // Each writes some 300 files; side by side, three take half as long as one after the other.
  await Promise.all(
    missing.map((name) =>
      withClient(adminUrl, 'cloudphone provision', (client) =>
        client.query(`create database ${client.escapeIdentifier(name)}`),
      ),
    ),
  )
  return missing
}

async function ensureRoles(admin: pg.Client, services: readonly PlannedService[]): Promise<void> {
  const { rows } = await admin.query<{ name: string; mark: string | null; usable: boolean }>(
    `select rolname as name, shobj_description(oid, 'pg_authid') as mark, pg_has_role(oid, 'usage') as usable
     from pg_roles where rolname = any($1)`,
    [services.map(({ role }) => role)],
  )
  for (const { role, password } of services) {
    const found = rows.find(({ name }) => name === role)
    // Which password the role has: setting it again costs a key derivation per role at every start.
    const mark = `cloudphone ${createHash('sha256').update(password).digest('hex').slice(0, 16)}`
    const quoted = admin.escapeIdentifier(role)
    if (found?.mark !== mark) {
      await admin.query(
        `${found === undefined ? 'create' : 'alter'} role ${quoted} login password ${admin.escapeLiteral(password)}`,
      )
      await admin.query(`comment on role ${quoted} is ${admin.escapeLiteral(mark)}`)
    }
    // An administrator who is no superuser may give a schema only to a role whose rights it has.
    if (found?.usable !== true) {
      await admin.query(
        `do $$ begin if not pg_has_role('${role}', 'usage') then grant ${quoted} to current_user; end if; end $$`,
      )
    }
  }
}

async function ensureSchemas(url: DatabaseTarget, services: readonly PlannedService[]): Promise<void> {
  await withClient(url, 'cloudphone provision', async (client) => {
    const { database } = describeTarget(url)
    const quotedDatabase = client.escapeIdentifier(database)
    const { rows } = await client.query<{ schema: string }>('select nspname as schema from pg_namespace')
    const statements = [
      `revoke all on schema public from public`,
      `revoke all on database ${quotedDatabase} from public`,
    ]
    for (const { schema, role } of services) {
      const quotedRole = client.escapeIdentifier(role)
      const quotedSchema = client.escapeIdentifier(schema)
      if (!rows.some((row) => row.schema === schema)) {
        statements.push(`create schema ${quotedSchema} authorization ${quotedRole}`)
      }
      statements.push(
        `grant connect on database ${quotedDatabase} to ${quotedRole}`,
        `alter role ${quotedRole} in database ${quotedDatabase} set search_path to ${quotedSchema}`,
      )
    }
    // One simple query is one transaction: a crash leaves all of it or nothing.
    await client.query(statements.join(';'))
  })
}
