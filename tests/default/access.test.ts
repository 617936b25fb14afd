import { randomUUID } from 'node:crypto'
import { Role } from '@cloudphone/contracts/access'
import type { Route } from '@cloudphone/contracts/route'
import { publicRoutes } from '@cloudphone/contracts/routes'
import type { Client } from '@cloudphone/sdk/client'
import { present } from '@cloudphone/testing/present'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { cast, type Player, type Things } from '../src/access-cast.ts'
import { type Answer, ask, newPerson } from '../src/door.ts'
import { somebodyElsewhere } from '../src/elsewhere.ts'
import { openPlatform, type TestPlatform } from '../src/platform.ts'

/* Every route x every role x {own, same tenant, other tenant}, tried for real; docs/access.md is what came of it. */

let platform: TestPlatform
/** By role: who asks, and a colleague whose things he asks for. */
const callers = new Map<Role, { self: Player; mate: Player }>()
let stranger: Things
const platformCallers = new Map<Role, Client>()

beforeAll(async () => {
  platform = await openPlatform()
  const [here, elsewhere] = await Promise.all([
    somebodyElsewhere(platform, { slug: 'here' }),
    somebodyElsewhere(platform),
  ])
  const [alien] = await Promise.all([
    cast(platform, elsewhere, 'member'),
    ...Role.options.map(async (role) => {
      const [self, mate] = await Promise.all([cast(platform, here, role), cast(platform, here, 'member')])
      callers.set(role, { self, mate })
      platformCallers.set(role, (await newPerson(platform.client, role)).client)
    }),
  ])
  stranger = alien.things
  // The founders step back, so that the administrator who asks is the last one, and cannot do away with himself.
  await platform.books.query(
    `update users.users set role = 'viewer' where email like 'admin-%'
       and not (select is_platform from users.tenants where tenants.id = users.tenant_id)`,
  )
}, 60_000)
afterAll(() => platform?.close())

/** What a route is asked with, where empty will not do; and the cases in which what is asked for decides. */
interface Case {
  readonly name?: string
  readonly body?: (of: Things) => unknown
  readonly query?: (of: Things) => string
}

const cases: Readonly<Record<string, readonly Case[]>> = {
  createDevice: [
    { name: 'for oneself', body: () => ({ name: 'a phone' }) },
    { name: 'for a user', body: ({ userId }) => ({ name: 'a phone', userId }) },
    { name: 'pooled', body: () => ({ name: 'a phone', userId: null }) },
  ],
  createAllocation: [{ name: 'for oneself' }, { name: 'for a user', body: ({ userId }) => ({ userId }) }],
  installApp: [{ body: ({ deviceId }) => ({ deviceId }) }],
  runShell: [{ body: () => ({ argv: ['id'] }) }],
  sendInput: [{ body: () => ({ input: { kind: 'key', key: 'HOME' } }) }],
  pullFile: [{ query: () => 'path=/system/build.prop' }],
  pushFile: [{ query: () => 'path=/sdcard/a' }],
  setQuota: [{ body: () => ({ maxDevices: 50, maxCpu: 200, maxMemory: 400_000, maxStorage: 4_000_000 }) }],
  skipSagaStep: [{ body: () => ({ step: 'A_STEP', reason: 'to see' }) }],
  turnSagaBack: [{ body: () => ({ reason: 'to see' }) }],
  listUsage: [{ name: 'of a user', query: ({ userId }) => `userId=${userId}` }],
  usageTotal: [{ name: 'of a user', query: ({ userId }) => `userId=${userId}` }],
  listSagas: [{ name: 'of a user', query: ({ userId }) => `userId=${userId}` }],
  renameTenant: [{ body: () => ({ name: 'Another' }) }],
  rotateApiKey: [{ body: () => ({ overlapSeconds: 60 }) }],
  updateUser: [
    { name: 'the name', body: () => ({ name: 'Another' }) },
    { name: 'the role', body: () => ({ role: 'member' }) },
  ],
  suspendUser: [{ body: () => ({ reason: 'to see' }) }],
  replayDeadLetters: [{ body: () => ({ reason: 'to see' }) }],
}

/** Not anybody's: one that does not exist, so that "there is none" is the answer to who may ask. */
const nobodys = ['deadLetterId']

/** What ends things goes last, and what ends the most of them at the very end. */
const ends = [
  /^(GET|PUT|PATCH)/,
  /^POST/,
  /release$/,
  /^DELETE .*(sessions|keys|installations|packages)/,
  /^DELETE (?!.*(sessions|keys|installations|packages))/,
  /suspend$/,
  /^DELETE \/api\/users\/:userId$/,
]
const order = ({ method, path }: Route) => ends.findLastIndex((one) => one.test(`${method} ${path}`))

function pathWith(route: Route, things: Things): string {
  return route.path.replaceAll(/:(\w+)/g, (_whole, name: string) => {
    if (nobodys.includes(name)) return randomUUID()
    const id = things[name]
    if (id === undefined) throw new Error(`${route.name}: nobody in the cast has a ${name}`)
    return id
  })
}

async function tryOut(client: Client, route: Route, one: Case, things: Things): Promise<string> {
  const query = one.query === undefined ? '' : `?${one.query(things)}`
  const answer = await ask(client, route.method, `${pathWith(route, things)}${query}`, {
    ...(route.upload !== undefined && { raw: formWith(route.upload) }),
    ...(route.method !== 'GET' && route.upload === undefined && { body: one.body?.(things) ?? {} }),
  })
  return verdict(route, one, answer)
}

function formWith(field: string): FormData {
  const form = new FormData()
  form.append(field, new Blob(['a text']), 'a name')
  return form
}

/** Refusals that are no question of who asks for whose. */
const decisions = new Set(['quota_exceeded', 'user_suspended', 'scope_not_held'])
/** Told only to who may look into a phone. */
const insidePhone = new Set(['package_not_found', 'file_not_found'])

/** `yes` for whatever the domain has to say to somebody who may ask. */
function verdict(route: Route, one: Case, { status, body }: Answer): string {
  const code: string = body?.code ?? ''
  if (status === 401 || status >= 500) throw new Error(`${route.name}: ${status} ${JSON.stringify(body)}`)
  if (isAboutSomething(route, one) && status === 400) throw new Error(`${route.name}: ${body.detail}`)
  if (status === 403 && !decisions.has(code)) return '403'
  if (status === 404 && isAboutSomething(route, one) && !insidePhone.has(code)) return '404'
  return 'yes'
}

/** True for a route whose answer depends on whose thing it is asked for. */
function isAboutSomething(route: Route, { body, query }: Case): boolean {
  const named = [...route.path.matchAll(/:(\w+)/g)].some(([, name]) => !nobodys.includes(name ?? ''))
  const asks = (given: ((of: Things) => unknown) | undefined) =>
    given !== undefined && JSON.stringify(given(stranger)) !== JSON.stringify(given({}))
  return named || asks(body) || asks(query)
}

const inTenant = ['viewer', 'member', 'operator', 'admin'] as const
const ofPlatform = ['viewer', 'admin'] as const

const questions = publicRoutes
  .filter(({ access }) => access.kind === 'user')
  .toSorted((one, other) => order(one) - order(other))
  .flatMap((route) => (cases[route.name] ?? [{}]).map((one) => ({ route, one })))

/** A column of the page: all questions, one after the other, by one caller. */
async function columnOf(client: Client, about: (route: Route, one: Case) => readonly Things[]) {
  const cells: string[] = []
  for (const { route, one } of questions) {
    const verdicts: string[] = []
    // Others first: what the caller does to himself may end what he asks with.
    for (const things of about(route, one).toReversed()) {
      verdicts.unshift(await tryOut(client, route, one, things))
    }
    cells.push(verdicts.join(' '))
  }
  return cells
}

test('who may do what is what docs/access.md says', async () => {
  const columns = await Promise.all([
    ...inTenant.map((role) => {
      const { self, mate } = present(callers.get(role))
      return columnOf(self.person.client, (route, one) =>
        isAboutSomething(route, one) ? [self.things, mate.things, stranger] : [self.things],
      )
    }),
    ...ofPlatform.map((role) => columnOf(present(platformCallers.get(role)), () => [stranger])),
  ])
  const rows = questions.map(({ route, one }, index) => {
    const permission = route.access.kind === 'user' ? route.access.permission : ''
    const key = `\`${route.method} ${route.path}\`${one.name === undefined ? '' : ` ${one.name}`}`
    return { route, line: `| ${[key, permission, ...columns.map((cells) => cells[index])].join(' | ')} |` }
  })
  const lines = rows
    .toSorted(({ route: one }, { route: other }) => one.path.localeCompare(other.path))
    .map(({ line }) => line)
  await expect(pageOf(lines)).toMatchFileSnapshot('../../docs/access.md')
}, 60_000)

function pageOf(lines: readonly string[]): string {
  return `# Who may do what

Every public route that needs a caller, asked for real by every role. A cell with three marks is about a thing of one's own,
of a colleague (same tenant), and of another tenant. \`yes\`: the caller may ask, whatever the answer then is; \`403\`: it is
there, and not for this caller; \`404\`: as far as this caller can tell it is not there. The last two columns are people of the
tenant that runs the platform, asking for things of another tenant. Keys and notices are personal: a colleague's are not
there for anybody. A list of another tenant's user is empty.

This page is written by \`tests/default/access.test.ts\`, which fails when it is not true any more: read the difference, and
if it is meant, write it with \`npx vitest run tests/default/access.test.ts -u\`.

| route | permission | viewer | member | operator | admin | platform viewer | platform admin |
|---|---|---|---|---|---|---|---|
${lines.join('\n')}
`
}
