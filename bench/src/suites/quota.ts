import { randomBytes, randomUUID } from 'node:crypto'
import { CheckQuota, CommitQuota, ReserveQuota } from '@cloudphone/contracts/api/quota-api'
import { type Ids, systemIds, type TenantId, type UserId } from '@cloudphone/contracts/id'
import { pathOf } from '@cloudphone/contracts/request'
import { staticRegistry } from '@cloudphone/registry/registry'
import { ProblemError } from '@cloudphone/runtime/problem'
import { openServiceClient, type ServiceClient } from '@cloudphone/runtime/service-client'
import { openServiceTokens } from '@cloudphone/runtime/tokens'
import { openQuotaStand } from '@cloudphone/users/quota-stand'
import type { Figure } from '../harness/figure.ts'
import type { Suite, Task } from '../harness/program.ts'
import { closedLoop, median, percentile, timed } from '../harness/samples.ts'
import { openStage } from '../kernel/stage.ts'
import { PlatformProcess } from '../platform-process.ts'

const TENANTS = 100
const USERS_OF_EACH = 5
/** In flight at a time, as many phones are created at once. */
const LINES = 128
const CLIENTS = 4
const CHECKS = 3_000
const PORTION = { devices: 1, cpu: 1, memory: 512, storage: 512, sessions: 0, ttlSeconds: 900 }

interface Person {
  readonly userId: UserId
  readonly tenantId: TenantId
}

/**
 * Quota by itself, over a PostgreSQL of its own, and as other services meet it: over HTTP, with service tokens, on a
 * platform as `npm start` makes it.
 */
export const quota: Suite = {
  summary: 'quota: cached checks, reserve + commit over 100 tenants and for one, and that no limit is passed',
  options: {
    seconds: { default: '10', help: 'how long each rate is measured' },
    rounds: { default: '3', help: 'how often; figures are medians' },
  },
  run: async (task) => {
    const alone = await measureAlone(task)
    const secret = randomBytes(32).toString('base64url')
    await using platform = await PlatformProcess.prepare({
      CLOUDPHONE_SERVICE_SECRET: secret,
      ...{ GATEWAY_LIMIT_PER_SECOND: '100000', GATEWAY_LIMIT_PER_10_SECONDS: '1000000' },
      GATEWAY_LIMIT_PER_MINUTE: '1000000',
    })
    await platform.start()
    const client = openClients(platform.addressOf('users'), secret)
    try {
      const people = await settle(platform, { tenants: TENANTS, limit: 100_000_000, ids: systemIds })
      const [one] = people
      const figures = [
        ...(await measureChecks(platform, task)),
        ...alone,
        await measureRate(overHttp(client), people, { name: `${TENANTS} tenants, over HTTP`, task }),
        await measureRate(
          overHttp(client),
          people.filter(({ tenantId }) => tenantId === one?.tenantId),
          { name: 'one tenant, over HTTP', task },
        ),
        await measureOverrun(platform, client, task),
        await countWrong(platform),
      ]
      return { figures, facts: { PostgreSQL: await platform.postgresFacts(), lines: String(LINES) } }
    } finally {
      await client.close()
    }
  },
}

/** As so many instances of a service, each with its connections, whose calls go in turn. */
function openClients(users: string, secret: string): Pick<ServiceClient, 'call' | 'close'> {
  const clients = Array.from({ length: CLIENTS }, () =>
    openServiceClient({
      self: 'devices',
      registry: staticRegistry({ users: [users] }),
      serviceTokens: openServiceTokens({ secret, now: () => new Date() }),
    }),
  )
  let turn = 0
  return {
    call: (route, input) => (clients[turn++ % CLIENTS] as ServiceClient).call(route, input),
    close: async () => {
      await Promise.all(clients.map((one) => one.close()))
    },
  }
}

/** Makes tenants with their users, whose limits are `limit` of everything. */
async function settle(
  platform: PlatformProcess,
  { tenants, limit, ids }: { tenants: number; limit: number; ids: Ids },
): Promise<Person[]> {
  const people = Array.from({ length: tenants }, () => ids.next<'tenant'>()).flatMap((tenantId) =>
    Array.from({ length: USERS_OF_EACH }, () => ({ tenantId, userId: ids.next<'user'>() })),
  )
  const columns = 'max_devices, max_cpu, max_memory, max_storage'
  await platform.ask('cloudphone_core', async (client) => {
    const tenantIds = [...new Set(people.map(({ tenantId }) => tenantId))]
    const limits = Array.from({ length: 4 }, () => limit)
    await client.query(
      'insert into users.tenants (id, slug, name) select id, id::text, id::text from unnest($1::uuid[]) as id',
      [tenantIds],
    )
    await client.query(
      `insert into users.tenant_quotas (tenant_id, ${columns}) select id, $2, $3, $4, $5 from unnest($1::uuid[]) as id`,
      [tenantIds, ...limits],
    )
    await client.query(
      `insert into users.users (id, tenant_id, email, name, password_hash, role)
       select id, tenant_id, id || '@bench.example.com', 'bench', 'none', 'member'
       from unnest($1::uuid[], $2::uuid[]) as person (id, tenant_id)`,
      [people.map(({ userId }) => userId), people.map(({ tenantId }) => tenantId)],
    )
    await client.query(
      `insert into users.quotas (user_id, ${columns})
       select id, 100000000, 100000000, 2000000000, 2000000000 from unnest($1::uuid[]) as id`,
      [people.map(({ userId }) => userId)],
    )
  })
  return people
}

/** One after the other, at the devices service itself. */
async function measureChecks(platform: PlatformProcess, { progress }: Task): Promise<Figure[]> {
  const authorization = `Bearer ${await platform.client.accessToken()}`
  const url = `${platform.addressOf('devices')}${pathOf(CheckQuota, {})}`
  const check = async () => {
    const answer = await fetch(url, { headers: { authorization } })
    if (!answer.ok) throw new Error(`a check was answered ${answer.status}: ${await answer.text()}`)
    return await answer.json()
  }
  for (let n = 0; n < CHECKS / 3; n += 1) await check()
  const times: number[] = []
  for (let n = 0; n < CHECKS; n += 1) times.push((await timed(check)).ms)
  progress(`checks: p50 ${median(times).toFixed(2)} ms`)
  return [
    {
      name: 'quota check out of the cache, HTTP included, p50 (ms)',
      ours: median(times),
      wanted: { is: '<', than: 1 },
    },
    {
      name: `quota check out of the cache, HTTP included, p99 of ${CHECKS} (ms)`,
      ours: percentile(times, 0.99),
    },
  ]
}

/** The users service's own part, without HTTP on either side. */
async function measureAlone(task: Task): Promise<Figure[]> {
  await using stage = await openStage()
  await using stand = await openQuotaStand(await stage.database('bench_quota'), {
    ...{ tenants: TENANTS, usersOfEach: USERS_OF_EACH, poolSize: 5 },
  })
  const { people, quotas } = stand
  const both: ReserveAndCommit = async (reservationId, { userId, tenantId }) => {
    await quotas.reserve({ reservationId, userId, tenantId, ...PORTION })
    await quotas.commit(reservationId)
  }
  const [one] = people
  const ofOne = people.filter(({ tenantId }) => tenantId === one?.tenantId)
  const figures = [
    await measureRate(both, people, { name: `${TENANTS} tenants`, wanted: 2_000, task }),
    await measureRate(both, ofOne, { name: 'one tenant', wanted: 500, task }),
  ]
  const wrong = await stand.countWrong()
  if (wrong > 0) throw new Error(`${wrong} counters are not the sum of their reservations`)
  return figures
}

type ReserveAndCommit = (reservationId: string, person: Person) => Promise<void>

function overHttp(client: Pick<ServiceClient, 'call'>): ReserveAndCommit {
  return async (reservationId, { userId, tenantId }) => {
    await client.call(ReserveQuota, { body: { reservationId, userId, tenantId, ...PORTION } })
    await client.call(CommitQuota, { params: { reservationId } })
  }
}

async function measureRate(
  reserveAndCommit: ReserveAndCommit,
  people: readonly Person[],
  { name, wanted, task }: { name: string; wanted?: number; task: Task },
): Promise<Figure> {
  let turn = 0
  const once = () => reserveAndCommit(randomUUID(), people[turn++ % people.length] as Person)
  await closedLoop({ concurrency: LINES, durationMs: 2_000, once })
  const rates: number[] = []
  for (let round = 1; round <= task.number('rounds'); round += 1) {
    const { count, elapsedMs } = await closedLoop({
      ...{ concurrency: LINES, once, durationMs: task.number('seconds') * 1000 },
    })
    rates.push((count * 1000) / elapsedMs)
    task.progress(`${name}: ${Math.round(rates.at(-1) ?? 0)} reserve + commit a second`)
  }
  return {
    name: `reserve + commit, ${name} (1/s)`,
    ours: median(rates),
    oursRange: [Math.min(...rates), Math.max(...rates)],
    ...(wanted !== undefined && { wanted: { is: '>=', than: wanted } }),
  }
}

/** Tenants that may have 20 phones are asked for 60 each, all at once. */
async function measureOverrun(
  platform: PlatformProcess,
  client: Pick<ServiceClient, 'call'>,
  { progress }: Task,
): Promise<Figure> {
  const [limit, asked] = [20, 60]
  const people = await settle(platform, { tenants: TENANTS, limit: 0, ids: systemIds })
  await platform.ask('cloudphone_core', async (admin) => {
    await admin.query(
      `update users.tenant_quotas set max_devices = $2, max_cpu = null, max_memory = null, max_storage = null
       where tenant_id = any($1::uuid[])`,
      [people.map(({ tenantId }) => tenantId), limit],
    )
  })
  const taken = new Map<TenantId, number>()
  let left = TENANTS * asked
  const line = async () => {
    while (left > 0) {
      left -= 1
      const { userId, tenantId } = people[
        (left * USERS_OF_EACH + (left % USERS_OF_EACH)) % people.length
      ] as Person
      const body = { reservationId: randomUUID(), userId, tenantId, ...PORTION }
      try {
        await client.call(ReserveQuota, { body })
        taken.set(tenantId, (taken.get(tenantId) ?? 0) + 1)
      } catch (error) {
        if (!(error instanceof ProblemError) || error.code !== 'quota_exceeded') throw error
      }
    }
  }
  await Promise.all(Array.from({ length: LINES }, line))
  const all = [...taken.values()].reduce((sum, one) => sum + one, 0)
  progress(`${all} of ${TENANTS * asked} taken, ${TENANTS * limit} were allowed`)
  if (all < TENANTS * limit) throw new Error('less was taken than allowed: the drill proves nothing')
  return {
    name: `phones reserved beyond the limits of ${TENANTS} tenants, ${TENANTS * asked} asked for`,
    ours: [...taken.values()].reduce((sum, one) => sum + Math.max(0, one - limit), 0),
    wanted: { is: '<=', than: 0 },
  }
}

/** Counters that are not the sum of their reservations, or above their limits, after all of it. */
async function countWrong(platform: PlatformProcess): Promise<Figure> {
  const { rows } = await platform.ask('cloudphone_core', (client) =>
    client.query<{ wrong: number }>(`
      with held as (
        select users.tenant_id, users.id as user_id, count(*) as devices
        from users.quota_reservations join users.users on users.id = user_id
        where state <> 'released' and devices > 0 group by users.tenant_id, users.id
      )
      select (select count(*)::int from users.quotas q left join held using (user_id)
              where q.devices <> coalesce(held.devices, 0) or q.devices > q.max_devices)
           + (select count(*)::int from users.tenant_quotas t
              left join (select tenant_id, sum(devices) as devices from held group by tenant_id) h using (tenant_id)
              where t.devices <> coalesce(h.devices, 0) or t.devices > t.max_devices) as wrong`),
  )
  return {
    name: 'counters that differ from their reservations or pass their limits, at the end',
    ours: rows[0]?.wrong ?? Number.NaN,
    wanted: { is: '<=', than: 0 },
  }
}
