import { setTimeout as sleep } from 'node:timers/promises'
import { withClient } from '@cloudphone/db/client'
import { isUnavailable } from '@cloudphone/db/errors'
import { until } from '../../src/until.ts'
import { type BusPlace, SCHEMA } from '../kernel/world.ts'
import type { Load } from './load.ts'
import type { Stage } from './stage.ts'

/** What a scenario is given to hurt a stage with. */
export interface Play {
  readonly stage: Stage
  readonly load: Load
  /** How long its faults last, about. */
  readonly seconds: number
  /** Numbers in [0, 1) that the seed decides. */
  readonly random: () => number
  /** Deliveries that a broker threw away with their queue, because it was told to. */
  readonly discard: (queue: string, deliveries: number) => void
}

/** A kind of fault, again and again for a while, under a load that goes on. */
export interface Scenario {
  readonly name: string
  readonly summary: string
  readonly bus: BusPlace['kind']
  /** The server that each worker reaches through a door of its own. */
  readonly proxied?: 'postgres' | 'rabbitmq'
  /** Resolves when the last fault is over, with how many are proven to have happened. */
  play(play: Play): Promise<number>
}

const KILL_EVERY_MS = 5_000
const ORDINARY_WATERMARK = '0.4'

export const scenarios: readonly Scenario[] = [
  {
    name: 'kills',
    summary: 'kill -9 of one of two workers every 5 s',
    bus: 'embedded',
    // Twice as long as the others: five deaths in the hands of one step would quarantine its saga.
    play: ({ stage, seconds }) =>
      every({ times: Math.ceil((seconds * 2_000) / KILL_EVERY_MS), everyMs: KILL_EVERY_MS }, (turn) =>
        stage.kill(turn % 2),
      ),
  },
  {
    name: 'postgres-restarts',
    summary: 'PostgreSQL stopped at once and started, every 5 s',
    bus: 'embedded',
    play: ({ stage, seconds }) =>
      every({ times: Math.ceil(seconds / 5), everyMs: 5_000 }, async () => {
        await stage.lane.crash()
        await sleep(500)
        await stage.lane.start()
      }),
  },
  {
    name: 'backend-kills',
    summary: 'pg_terminate_backend of a random backend, 5 a second',
    bus: 'embedded',
    play: terminateBackends,
  },
  {
    name: 'pool-exhaustion',
    summary: 'idle connections up to max_connections, and the workers cut off from theirs',
    bus: 'embedded',
    play: exhaust,
  },
  {
    name: 'idle-in-transaction',
    summary: 'transactions that hold a snapshot and do nothing: nothing can be vacuumed',
    bus: 'embedded',
    play: pinSnapshots,
  },
  {
    name: 'postgres-half-open',
    summary: 'the connections of one worker, then of the other, say nothing and do not close',
    bus: 'embedded',
    proxied: 'postgres',
    play: silenceInTurn,
  },
  {
    name: 'postgres-latency',
    summary: 'PostgreSQL is 200 ms away, give or take 100',
    bus: 'embedded',
    proxied: 'postgres',
    play: slowDown,
  },
  {
    name: 'event-burst',
    summary: 'thousands of events at once, every 5 s',
    bus: 'embedded',
    play: ({ load, seconds }) =>
      every({ times: Math.ceil(seconds / 5), everyMs: 5_000 }, () => load.burst(2_000)),
  },
  {
    name: 'rolling-restarts',
    summary:
      'both workers restarted ten times, one after the other: SIGTERM, drain, next; events on RabbitMQ',
    bus: 'rabbitmq',
    play: ({ stage, seconds }) =>
      every({ times: 2 * Math.ceil((seconds * 2) / 3), everyMs: 0 }, (turn) => stage.roll(turn % 2)),
  },
  {
    name: 'rabbitmq-restarts',
    summary: 'RabbitMQ killed and started',
    bus: 'rabbitmq',
    play: ({ stage, seconds }) =>
      every({ times: Math.ceil(seconds / 8), everyMs: 8_000 }, async () => {
        await stage.broker.kill()
        await stage.broker.start()
      }),
  },
  {
    name: 'rabbitmq-memory-alarm',
    summary: 'RabbitMQ is short of memory and takes nothing (connection.blocked)',
    bus: 'rabbitmq',
    play: alarm,
  },
  {
    name: 'rabbitmq-half-open',
    summary: 'the connections of one worker, then of the other, say nothing and do not close',
    bus: 'rabbitmq',
    proxied: 'rabbitmq',
    play: silenceInTurn,
  },
  {
    name: 'queue-deleted',
    summary: 'a queue deleted under its consumer',
    bus: 'rabbitmq',
    play: deleteQueue,
  },
]

/** Strikes so many times, `everyMs` from one beginning to the next at least; resolves with the last one. */
async function every(
  { times, everyMs }: { times: number; everyMs: number },
  strike: (turn: number) => Promise<void>,
): Promise<number> {
  for (let turn = 0; turn < times; turn += 1) {
    const startedMs = performance.now()
    await strike(turn)
    if (turn < times - 1) await sleep(Math.max(0, everyMs - (performance.now() - startedMs)))
  }
  return times
}

async function terminateBackends({ stage, seconds, random }: Play): Promise<number> {
  let struck = 0
  await every({ times: seconds * 5, everyMs: 200 }, async () => {
    const rows = await stage.database.query<{ ended: boolean }>(
      `select pg_terminate_backend(pid) as ended from pg_stat_activity
       where usename like 'kernel\\_%' and datname = current_database()
       order by hashtextextended(pid::text, $1) limit 1`,
      [Math.floor(random() * 2 ** 31)],
    )
    struck += rows.length
  })
  return struck
}

/** Fills the server, takes the workers' connections away, and goes on taking whatever becomes free. */
async function exhaust({ stage, seconds }: Play): Promise<number> {
  const lifted = Promise.withResolvers<void>()
  const holders: Promise<void>[] = []
  let held = 0
  let refused = 0
  const hold = async (): Promise<void> => {
    try {
      await withClient(stage.database.target(2), 'idle', async () => {
        held += 1
        await lifted.promise
      })
    } catch (error) {
      if (!isUnavailable(error)) throw error
      refused += 1
    }
  }
  const fill = async (untilMs: number): Promise<void> => {
    while (performance.now() < untilMs) {
      const before = refused
      const some = Array.from({ length: 25 }, hold)
      holders.push(...some)
      // Those that were let in are not over before the fault is.
      const end = held + refused + some.length
      while (held + refused < end && performance.now() < untilMs) await sleep(20)
      if (refused > before) await sleep(200)
    }
  }
  const filling = fill(performance.now() + seconds * 1_000)
  await until('the server to be full', async () => refused > 0)
  const cut = (await stage.database.terminate(0)) + (await stage.database.terminate(1))
  await filling
  lifted.resolve()
  await Promise.all(holders)
  return cut > 0 ? 1 : 0
}

async function pinSnapshots({ stage, seconds }: Play): Promise<number> {
  const transactions = Array.from({ length: 8 }, () =>
    withClient(stage.database.target(2), 'idle in transaction', async (client) => {
      await client.query('begin isolation level repeatable read')
      await client.query(`select count(*) from ${SCHEMA}.saga_state`)
      await sleep(seconds * 1_000)
      await client.query('rollback')
    }),
  )
  await Promise.all(transactions)
  return transactions.length
}

async function silenceInTurn({ stage, seconds }: Play): Promise<number> {
  for (const proxy of stage.proxies) {
    proxy.silence()
    await sleep((seconds * 1_000) / stage.proxies.length)
    proxy.heal()
  }
  return stage.proxies.length
}

async function slowDown({ stage, seconds, random }: Play): Promise<number> {
  // Half of it on each way.
  for (const proxy of stage.proxies) proxy.delay(() => 50 + random() * 100)
  await sleep(seconds * 1_000)
  for (const proxy of stage.proxies) proxy.delay(() => 0)
  return stage.proxies.length
}

async function alarm({ stage, seconds }: Play): Promise<number> {
  const { broker } = stage
  await broker.control('set_vm_memory_high_watermark', '0.00001')
  try {
    const alarms = await broker.control('eval', 'rabbit_alarm:get_alarms().')
    await sleep(seconds * 1_000)
    return alarms.includes('memory') ? 1 : 0
  } finally {
    await broker.control('set_vm_memory_high_watermark', ORDINARY_WATERMARK)
  }
}

/** Of a queue that nobody waits for an answer of: what is in it when it is deleted is gone, whoever asks. */
const DELETED = 'notifications.thing'

async function deleteQueue({ stage, seconds, discard }: Play): Promise<number> {
  return await every({ times: Math.ceil(seconds / 5), everyMs: 5_000 }, async () => {
    const said = await stage.broker.control('delete_queue', '-p', stage.virtualHost, DELETED)
    const ready = /deleted with (\d+) ready messages/.exec(said)?.[1]
    if (ready === undefined) throw new Error(`rabbitmqctl does not say what was in the queue: ${said}`)
    discard(DELETED, Number(ready))
  })
}
