import { setTimeout as sleep } from 'node:timers/promises'
import { silentLog } from '@cloudphone/observe/log'
import { audit, type Complaint } from '../kernel/auditor.ts'
import { isSettled } from '../kernel/cell.ts'
import { comesTrue } from '../kernel/patience.ts'
import { openPayer } from '../kernel/payer.ts'
import { kernelTopology, openBus } from '../kernel/world.ts'
import { type Load, openLoad } from './load.ts'
import { NO_PACE, type Pace, type Phases, paceOf, type Work } from './pace.ts'
import type { Play, Scenario } from './scenarios.ts'
import { type Grounds, openStage, type Stage, timing } from './stage.ts'

export interface Result {
  readonly scenario: Scenario
  /** How many faults are proven to have happened. */
  readonly struck: number
  readonly pace: Pace
  readonly complaints: readonly Complaint[]
  readonly dead: number
  readonly quarantined: number
  readonly sagas: number
  /** Effects that were to be had, each exactly once. */
  readonly effects: number
  readonly durationMs: number
}

export interface RunOptions {
  readonly grounds: Grounds
  /** How long faults last, about; the baseline and the recovery are measured in proportion. */
  readonly seconds: number
  /** Sagas that are asked for, per second. */
  readonly rate: number
  readonly random: () => number
}

/** Beside the events that sagas send. */
const EVENTS_PER_SAGA = 2
const WARM_UP_MS = 2_000
const WARM_WITHIN_MS = 60_000
/** What is looked at to say whether it has recovered. */
const RECOVERY_MS = 10_000
const SETTLE_WITHIN_MS = 120_000

/** Plays a scenario under load and lets the auditor judge what is left. One that breaks down is a complaint like any other. */
export async function runScenario(scenario: Scenario, options: RunOptions): Promise<Result> {
  const startedMs = performance.now()
  try {
    return await carryOut(scenario, options)
  } catch (error) {
    const text = `the scenario broke down: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`
    return {
      ...{
        scenario,
        struck: 0,
        pace: NO_PACE,
        complaints: [{ kind: 'stuck', text }],
        dead: 0,
        quarantined: 0,
      },
      ...{ sagas: 0, effects: 0, durationMs: performance.now() - startedMs },
    }
  }
}

async function carryOut(scenario: Scenario, { grounds, rate, ...options }: RunOptions): Promise<Result> {
  const startedMs = performance.now()
  const { name, bus, proxied } = scenario
  await using stage = await openStage(grounds, { name, bus, proxied })
  const load = openLoad({
    begin: (wishes) => stage.insist({ verb: 'begin', wishes }),
    url: stage.database.target(2),
    sagasPerSecond: rate,
    eventsPerSecond: rate * EVENTS_PER_SAGA,
  })
  const payer = openPayer({
    query: stage.database.query,
    deliver: (callback) => stage.insist({ verb: 'callback', callback }),
    pays: (orderId) => orderId.startsWith('paid'),
  })
  // For a scenario that breaks down; its error is told, and not what comes of it.
  await using abandoned = new AsyncDisposableStack()
  abandoned.defer(() => load.close().catch(() => undefined))
  abandoned.defer(() => payer.close().catch(() => undefined))
  abandoned.defer(() => stage.giveUp())
  await warmUp(stage, rate)
  const discarded = new Map<string, number>()
  const discard = (queue: string, deliveries: number): void => {
    discarded.set(queue, deliveries + (discarded.get(queue) ?? 0))
  }
  const { phases, struck } = await playPhases(scenario, { stage, load, discard, ...options })
  await load.close()
  const complaints = await settle(stage, load, discarded)
  await payer.close()
  await stage.close()
  const judged = await judge(stage, load)
  return {
    ...{ scenario, struck, ...judged, complaints: [...complaints, ...judged.complaints] },
    pace: paceOf(await worksOf(stage), phases),
    sagas: load.promised.length,
    durationMs: performance.now() - startedMs,
  }
}

/** Until the work is done as fast as it comes: a baseline of processes that still compile would flatter what follows. */
async function warmUp({ database }: Stage, rate: number): Promise<void> {
  await sleep(WARM_UP_MS)
  const keepsUp = async (): Promise<boolean> => {
    const [found] = await database.query<{ live: number; ended: number }>(`
      select count(*) filter (where ended_at is null)::integer as live, count(ended_at)::integer as ended
      from saga_state`)
    return found !== undefined && found.live <= rate && found.ended >= rate
  }
  if (await comesTrue(keepsUp, WARM_WITHIN_MS)) return
  throw new Error(`${rate} sagas a second are more than this machine can do now: give a lower --rate`)
}

async function playPhases(scenario: Scenario, play: Play): Promise<{ phases: Phases; struck: number }> {
  const { seconds } = play
  const baselineFromMs = Date.now()
  await sleep(Math.max(2_000, seconds * 400))
  const struckMs = Date.now()
  const struck = await scenario.play(play)
  const liftedMs = Date.now()
  await sleep(Math.min(RECOVERY_MS, Math.max(4_000, seconds * 700)))
  return { phases: { baselineFromMs, struckMs, liftedMs, endMs: Date.now() }, struck }
}

async function settle(
  stage: Stage,
  load: Load,
  discarded: ReadonlyMap<string, number>,
): Promise<Complaint[]> {
  const missed: Complaint[] = []
  for (const [queue, deliveries] of discarded) missed.push(...(await sendAgain(stage, queue, deliveries)))
  const wishes = load.promised.map(({ wish }) => wish)
  if (await comesTrue(() => isSettled(stage.database.query, wishes), SETTLE_WITHIN_MS)) return missed
  return [...missed, { kind: 'stuck', text: `not at rest ${SETTLE_WITHIN_MS} ms after the load had ended` }]
}

/** As an operator does who has deleted a queue: what was in it is published again. More than that must not be missing. */
async function sendAgain(
  { database: { query } }: Stage,
  queue: string,
  deliveries: number,
): Promise<Complaint[]> {
  const isFor = kernelTopology.find((one) => one.queue === queue)?.events.map(({ name }) => name) ?? []
  const missing = (): Promise<{ id: string }[]> =>
    query(
      `select id from event_outbox e where event_type = any($1::text[])
         and not exists (select from effect where effect.queue = $2 and effect.event_id = e.id)`,
      [isFor, queue],
    )
  await comesTrue(async () => (await missing()).length <= deliveries, SETTLE_WITHIN_MS)
  const lost = await missing()
  await query(`update event_outbox set status = 'pending', published_at = null where id = any($1::uuid[])`, [
    lost.map(({ id }) => id),
  ])
  if (lost.length <= deliveries) return []
  return [
    { kind: 'lost', text: `${queue} was deleted with ${deliveries} deliveries, and lacks ${lost.length}` },
  ]
}

async function judge(
  { database, books, bus }: Stage,
  load: Load,
): Promise<Pick<Result, 'complaints' | 'dead' | 'quarantined' | 'effects'>> {
  const { query } = database
  const observer = openBus({ url: database.target(2), bus, timing, log: silentLog() })
  try {
    const complaints = await audit({
      ...{ query, bus: observer, history: books.history, promised: load.promised },
    })
    const dead = (await observer.statistics()).reduce((sum, queue) => sum + queue.dead, 0)
    const [found] = await query<{ quarantined: number; told: number; effects: number }>(`
      select (select count(*)::integer from saga_state where status = 'QUARANTINED') as quarantined,
        (select count(*)::integer from event_outbox where aggregate_id like 'told-%') as told,
        (select count(*)::integer from effect) as effects`)
    const { quarantined = 0, told = 0, effects = 0 } = found ?? {}
    if (told !== load.events)
      complaints.push({ kind: 'lost', text: `${load.events} events were written, ${told} are there` })
    return { complaints, dead, quarantined, effects }
  } finally {
    await observer.close()
  }
}

async function worksOf({ database }: Stage): Promise<Work[]> {
  return await database.query<Work>(`
    select (extract(epoch from created_at) * 1000)::float8 as "askedMs",
      (extract(epoch from ended_at) * 1000)::float8 as "endedMs"
    from saga_state where ended_at is not null`)
}
