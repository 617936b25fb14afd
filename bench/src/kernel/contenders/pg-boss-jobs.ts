import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { type Job, PgBoss } from 'pg-boss'
import type { Contestant } from '../contestant.ts'
import {
  auditEffects,
  type EventOrder,
  type EventOutcome,
  makeEffectTable,
  moveOf,
  NOTE,
} from './event-order.ts'
import type { JobSettings } from './graphile-jobs.ts'
import { truncate } from './tables.ts'

const EFFECTS = 'app'
const QUEUE = 'effect'
const BATCH = 500

interface Payload {
  readonly id: string
  readonly thing: string
  readonly version: number
  readonly note: string
}

/**
 * pg-boss: a job for each event. Its `work` looks at the queue at most twice a second for each worker, so jobs are taken by
 * `fetch` in a loop instead, which is faster. Fetch, effects and completion share a transaction, by its option `db`.
 * @public imported by its URL, in the process of the contestant
 */
export function openContestant({
  url,
  poolSize,
  concurrency,
}: JobSettings): Contestant<EventOrder, EventOutcome> {
  let boss: PgBoss | undefined
  let pool: pg.Pool | undefined
  const started = async (): Promise<PgBoss> => {
    // No schedules, no monitoring: only what the work needs.
    const fresh = new PgBoss({ connectionString: url, max: 4, supervise: false, schedule: false })
    fresh.on('error', (error) => console.error(error))
    await fresh.start()
    return fresh
  }
  const takeOne = async (from: PgBoss, client: pg.PoolClient, batchSize: number): Promise<number> => {
    const db = { executeSql: (text: string, values: unknown[] = []) => client.query(text, values) }
    await client.query('begin')
    const jobs: Job<Payload>[] = await from.fetch<Payload>(QUEUE, { batchSize, db })
    if (jobs.length > 0) {
      await client.query(
        `insert into ${EFFECTS}.effect (event_id, thing, version)
         select * from unnest($1::uuid[], $2::text[], $3::integer[])`,
        [
          jobs.map(({ data }) => data.id),
          jobs.map(({ data }) => data.thing),
          jobs.map(({ data }) => data.version),
        ],
      )
      await from.complete(
        QUEUE,
        jobs.map(({ id }) => id),
        undefined,
        { db },
      )
    }
    await client.query('commit')
    return jobs.length
  }
  return {
    async setUp() {
      const first = await started()
      await first.createQueue(QUEUE)
      await first.stop({ graceful: false })
      await makeEffectTable(url, EFFECTS)
    },
    async clear({ events }) {
      await truncate(url, { schema: 'pgboss', keep: ['version', 'queue'] })
      await truncate(url, { schema: EFFECTS, keep: [] })
      const filler = await started()
      await filler.createQueue(QUEUE)
      for (let first = 0; first < events; first += BATCH) {
        const jobs = Array.from({ length: Math.min(BATCH, events - first) }, (_, at) => ({
          data: { id: randomUUID(), ...moveOf(first + at), note: NOTE },
        }))
        await filler.insert(QUEUE, jobs)
      }
      await filler.stop({ graceful: false })
    },
    async open() {
      boss = await started()
      pool = new pg.Pool({ connectionString: url, max: poolSize })
    },
    async work({ events, taking }) {
      const [from, clients] = [boss, pool]
      if (from === undefined || clients === undefined) throw new Error('the contestant is not open')
      const startedMs = performance.now()
      let done = 0
      let lastMs = startedMs
      const line = async (): Promise<void> => {
        const client = await clients.connect()
        try {
          while (done < events) {
            const taken = await takeOne(from, client, taking === 'batch' ? BATCH : 1)
            done += taken
            if (taken > 0) lastMs = performance.now()
          }
        } finally {
          client.release()
        }
      }
      await Promise.all(Array.from({ length: concurrency }, line))
      return { events, elapsedMs: lastMs - startedMs }
    },
    async close() {
      await boss?.stop({ graceful: false })
      await pool?.end()
      boss = undefined
      pool = undefined
    },
    audit: ({ events }) => auditEffects(url, EFFECTS, events),
  }
}
