import { withClient } from '@cloudphone/db/client'
import { Logger, type Runner, run, runMigrations, type TaskList } from 'graphile-worker'
import type { Contestant } from '../contestant.ts'
import { Arrivals } from './arrivals.ts'
import {
  auditEffects,
  type EventOrder,
  type EventOutcome,
  makeEffectTable,
  NOTE,
  THINGS,
} from './event-order.ts'
import { truncate } from './tables.ts'

const EFFECTS = 'app'
const WITHIN_MS = 120_000
const BATCH = 500

export interface JobSettings {
  readonly url: string
  readonly poolSize: number
  /** Jobs in hand at a time. */
  readonly concurrency: number
}

interface Payload {
  readonly id: string
  readonly thing: string
  readonly version: number
}

/**
 * graphile-worker: a job for each event, which writes the effect. `one`: each is taken and completed by itself, as is its
 * default. `batch`: its local queue and batched completion, as its page on performance has them.
 * @public imported by its URL, in the process of the contestant
 */
export function openContestant({
  url,
  poolSize,
  concurrency,
}: JobSettings): Contestant<EventOrder, EventOutcome> {
  const arrivals = new Arrivals()
  const logger = new Logger(() => () => undefined)
  const taskList: TaskList = {
    effect: async (payload, { withPgClient }) => {
      firstMs ??= performance.now()
      const { id, thing, version } = payload as Payload
      await withPgClient((client) =>
        client.query(`insert into ${EFFECTS}.effect (event_id, thing, version) values ($1, $2, $3)`, [
          ...[id, thing, version],
        ]),
      )
      arrivals.add()
    },
  }
  let runner: Runner | undefined
  /** When the first job was in hand: what `run` does before is not work. */
  let firstMs: number | undefined
  return {
    async setUp() {
      await runMigrations({ connectionString: url, logger })
      await makeEffectTable(url, EFFECTS)
    },
    async clear({ events }) {
      await truncate(url, { schema: 'graphile_worker', keep: ['migrations', '_private_tasks'] })
      await truncate(url, { schema: EFFECTS, keep: [] })
      await withClient(url, 'bench', (client) =>
        client.query(
          `select count(graphile_worker.add_job('effect', json_build_object('id', gen_random_uuid(),
             'thing', 'thing-' || n % $2::integer, 'version', n / $2::integer + 1, 'note', $3::text)))
           from generate_series(0, $1::integer - 1) as n`,
          [events, THINGS, NOTE],
        ),
      )
    },
    async open({ events }) {
      arrivals.expect(events)
      firstMs = undefined
    },
    async work({ events, taking }) {
      runner = await run({
        ...{ connectionString: url, maxPoolSize: poolSize, taskList, logger, noHandleSignals: true },
        preset: {
          worker: {
            concurrentJobs: concurrency,
            ...(taking === 'batch' && {
              ...{ localQueue: { size: BATCH }, completeJobBatchDelay: 0, failJobBatchDelay: 0 },
            }),
          },
        },
      })
      const lastMs = await arrivals.all(WITHIN_MS)
      return { events, elapsedMs: lastMs - (firstMs ?? lastMs) }
    },
    async close() {
      await runner?.stop()
      runner = undefined
    },
    audit: ({ events }) => auditEffects(url, EFFECTS, events),
  }
}
