import { setTimeout as sleep } from 'node:timers/promises'
import { withClient } from '@cloudphone/db/client'
import { openDatabase } from '@cloudphone/db/database'
import { holdExecutor } from '@cloudphone/db/executor'
import { APP_NOW_MIGRATIONS, migrate } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { openSagas, SAGA_MIGRATIONS } from '@cloudphone/saga/engine'
import pg from 'pg'
import type { Figure } from '../../harness/figure.ts'
import { median, percentile } from '../../harness/samples.ts'
import { numbers } from '../contenders/tables.ts'
import { watchOthers } from '../others.ts'
import type { Setting } from '../rounds.ts'
import { type CrewMember, startCrewMember } from './crew.ts'
import { CALLS, drillSaga, LEASE_TTL_MS, LOCALS, makeWorld, SCHEMA } from './drill-saga.ts'

const KILLS = 20
const QUICK_KILLS = 3
const SAGAS_PER_SECOND = 60
/** Fewer in the middle of something would be no load. */
const IN_HAND = 5
const WITHIN_MS = 60_000
const LOOK_MS = 10

/** What the peers promise, by their documentation and source; nobody waits 15 minutes in a benchmark. */
export const PEERS_TAKE_OVER =
  'DBOS: at the next start of the same executor id, or by Conductor; pg-boss: after 15 min (expireInSeconds); graphile-worker: after 4 h'

/** Two processes carry sagas; one is killed in the middle, again and again: how soon does the other go on with its sagas? */
export async function measureTakeover(
  { stage, task, disturbances }: Setting,
  { share }: { share: number },
): Promise<Figure[]> {
  const kills = share < 1 ? QUICK_KILLS : KILLS
  const url = await stage.database('bench_takeover')
  const log = silentLog()
  await migrate({ url, schema: SCHEMA, directories: [APP_NOW_MIGRATIONS, SAGA_MIGRATIONS], log })
  await makeWorld(url)
  await using load = openLoad(url)
  const crew: CrewMember[] = [await startCrewMember(url, 'worker-1'), await startCrewMember(url, 'worker-2')]
  const others = await watchOthers()
  const slowest: number[] = []
  const all: number[] = []
  try {
    load.start()
    for (let kill = 1; kill <= kills; kill += 1) {
      const victim = crew.shift()
      if (victim === undefined) throw new Error('the crew is empty')
      await eventually(`${IN_HAND} sagas in the hands of ${victim.name}`, async () => {
        return (await inHand(url, { worker: victim.name, atMs: Date.now() })).length >= IN_HAND
      })
      const killedAtMs = await victim.kill()
      const delays = await goOn(url, { victim: victim.name, killedAtMs })
      all.push(...delays)
      slowest.push(Math.max(...delays))
      task.progress(
        `take-over: kill ${kill} of ${kills}: ${delays.length} sagas went on, the last after ${Math.max(...delays).toFixed(0)} ms`,
      )
      crew.push(await startCrewMember(url, `worker-${kill + 2}`))
    }
    disturbances.add({ title: 'take-over', entry: 'all kills', others: await others.end() })
    const started = await load.end()
    await eventually('the end of all sagas', async () => (await unended(url)) === 0)
    return [...delayFigures({ slowest, all, kills }), ...(await account(url, { started, kills }))]
  } finally {
    await Promise.all(crew.map((one) => one[Symbol.asyncDispose]()))
  }
}

function delayFigures({
  slowest,
  all,
  kills,
}: {
  slowest: number[]
  all: number[]
  kills: number
}): Figure[] {
  return [
    {
      name: `take-over after kill -9, slowest saga of each of ${kills} kills, p99, lease ${LEASE_TTL_MS / 1000} s (ms)`,
      ours: percentile(slowest, 0.99),
      oursRange: [Math.min(...slowest), Math.max(...slowest)],
      wanted: { is: '<=', than: LEASE_TTL_MS + 2_000 },
    },
    { name: `take-over after kill -9, median of all ${all.length} sagas in hand (ms)`, ours: median(all) },
  ]
}

/** By what the tables hold, not by what anybody remembers. */
async function account(
  url: string,
  { started, kills }: { started: number; kills: number },
): Promise<Figure[]> {
  const found = await numbers<'completed' | 'outside' | 'inside' | 'inside_once' | 'touches'>(
    url,
    `select (select count(*) from ${SCHEMA}.saga_state where status = 'COMPLETED') as completed,
            (select count(*) from ${SCHEMA}.outside) as outside,
            (select count(*) from ${SCHEMA}.inside) as inside,
            (select count(*) from (select distinct saga_id, step from ${SCHEMA}.inside) as once) as inside_once,
            (select count(*) from ${SCHEMA}.touch) as touches`,
  )
  const lost =
    started -
    found.completed +
    Math.max(0, started * CALLS - found.outside) +
    started * LOCALS -
    found.inside_once
  const doubled = Math.max(0, found.outside - started * CALLS) + found.inside - found.inside_once
  const none = { is: '<=', than: 0 } as const
  return [
    { name: `sagas and effects lost, of ${started} sagas under ${kills} kills`, ours: lost, wanted: none },
    { name: `effects doubled, of ${started} sagas under ${kills} kills`, ours: doubled, wanted: none },
    {
      name: 'calls repeated under the same key after a kill',
      ours: found.touches - started * (CALLS + LOCALS),
    },
  ]
}

/** Starts sagas at a steady rate from this process, which runs none. */
function openLoad(url: string) {
  const log = silentLog()
  const database = openDatabase({ url, schema: SCHEMA, poolSize: 4, applicationName: 'bench load', log })
  const executor = holdExecutor({ url, applicationName: 'bench load', log })
  const world = new pg.Pool({ connectionString: url, max: 1 })
  const definition = drillSaga({ world, worker: 'nobody' })
  const sagas = openSagas({
    database,
    executor,
    definitions: [definition],
    log,
    metrics: openMetrics('load'),
  })
  let loading = true
  let started = 0
  let running: Promise<void> | undefined
  const run = async (): Promise<void> => {
    while (loading) {
      const n = started
      await database.transaction((tx) =>
        sagas.start(tx, { definition, businessKey: `saga-${n}`, input: { n } }),
      )
      started += 1
      await sleep(1000 / SAGAS_PER_SECOND)
    }
  }
  const end = async (): Promise<number> => {
    loading = false
    await running
    return started
  }
  return {
    start() {
      running = run()
      running.catch(() => undefined) // thrown by `end`
    },
    end,
    async [Symbol.asyncDispose]() {
      loading = false
      await running?.catch(() => undefined) // thrown by `end`
      await sagas.stop()
      await Promise.all([executor.close(), world.end()])
      await database.close()
    },
  }
}

/** Sagas that this worker was the last to touch before `atMs`, and that had not ended by then. */
function inHand(url: string, { worker, atMs }: { worker: string; atMs: number }): Promise<string[]> {
  return withClient(url, 'bench', async (client) => {
    const { rows } = await client.query<{ id: string }>(
      `select saga_id as id from ${SCHEMA}.saga_state s
       where (s.ended_at is null or s.ended_at > to_timestamp($2::float8 / 1000)) and $1 =
         (select worker from ${SCHEMA}.touch t
          where t.saga_id = s.saga_id and t.at <= to_timestamp($2::float8 / 1000) order by at desc limit 1)`,
      [worker, atMs],
    )
    return rows.map(({ id }) => id)
  })
}

/** Waits until every saga that the victim had in hand goes on; how long after the kill each did, in ms. */
async function goOn(
  url: string,
  { victim, killedAtMs }: { victim: string; killedAtMs: number },
): Promise<number[]> {
  const left = await inHand(url, { worker: victim, atMs: killedAtMs })
  return await withClient(url, 'bench', async (client) => {
    let delays: (number | null)[] = []
    await eventually('the sagas of the victim to go on', async () => {
      // By the next touch of another; a saga of which only the end was left by that.
      const { rows } = await client.query<{ delay_ms: string | null }>(
        `select 1000 * extract(epoch from coalesce((select min(at) from ${SCHEMA}.touch t
           where t.saga_id = s.saga_id and t.worker <> $2 and t.at > to_timestamp($3::float8 / 1000)), s.ended_at))
           - $3::float8 as delay_ms
         from ${SCHEMA}.saga_state s where s.saga_id = any($1)`,
        [left, victim, killedAtMs],
      )
      delays = rows.map(({ delay_ms }) => (delay_ms === null ? null : Math.max(0, Number(delay_ms))))
      return delays.every((delay) => delay !== null)
    })
    return delays.filter((delay) => delay !== null)
  })
}

async function unended(url: string): Promise<number> {
  const { left } = await numbers<'left'>(
    url,
    `select count(*) as left from ${SCHEMA}.saga_state where ended_at is null`,
  )
  return left
}

async function eventually(what: string, look: () => Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + WITHIN_MS
  while (!(await look())) {
    if (performance.now() > deadlineMs) throw new Error(`waited ${WITHIN_MS} ms in vain for ${what}`)
    await sleep(LOOK_MS)
  }
}
