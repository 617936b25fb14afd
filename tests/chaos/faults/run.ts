import { setTimeout as sleep } from 'node:timers/promises'
import { silentLog } from '@cloudphone/observe/log'
import { audit, type Complaint } from '../kernel/auditor.ts'
import { isSettled } from '../kernel/cell.ts'
import { openPayer } from '../kernel/payer.ts'
import { openBus } from '../kernel/world.ts'
import { type Load, openLoad } from './load.ts'
import { type Pace, type Phases, paceOf, type Work } from './pace.ts'
import type { Scenario } from './scenarios.ts'
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
  readonly random: () => number
}

const SAGAS_PER_SECOND = 20
const EVENTS_PER_SECOND = 40
const WARM_UP_MS = 2_000
/** What is looked at to say whether it has recovered. */
const RECOVERY_MS = 10_000
const SETTLE_WITHIN_MS = 120_000

/** Plays a scenario under load and lets the auditor judge what is left. */
export async function runScenario(scenario: Scenario, { grounds, ...options }: RunOptions): Promise<Result> {
  const startedMs = performance.now()
  const { name, bus, proxied } = scenario
  await using stage = await openStage(grounds, { name, bus, proxied })
  const load = openLoad({
    begin: (wishes) => stage.insist({ verb: 'begin', wishes }),
    url: stage.database.target(2),
    sagasPerSecond: SAGAS_PER_SECOND,
    eventsPerSecond: EVENTS_PER_SECOND,
  })
  const payer = openPayer({
    query: stage.database.query,
    deliver: (callback) => stage.insist({ verb: 'callback', callback }),
    pays: (orderId) => orderId.startsWith('paid'),
  })
  const { phases, struck } = await playPhases(scenario, { stage, load, ...options })
  await load.close()
  const complaints = await settle(stage, load)
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

async function playPhases(
  scenario: Scenario,
  play: { stage: Stage; load: Load; seconds: number; random: () => number },
): Promise<{ phases: Phases; struck: number }> {
  const { seconds } = play
  await sleep(WARM_UP_MS)
  const baselineFromMs = Date.now()
  await sleep(Math.max(3_000, seconds * 400))
  const struckMs = Date.now()
  const struck = await scenario.play(play)
  const liftedMs = Date.now()
  await sleep(Math.min(RECOVERY_MS, Math.max(5_000, seconds * 700)))
  return { phases: { baselineFromMs, struckMs, liftedMs, endMs: Date.now() }, struck }
}

async function settle(stage: Stage, load: Load): Promise<Complaint[]> {
  const wishes = load.promised.map(({ wish }) => wish)
  const deadlineMs = performance.now() + SETTLE_WITHIN_MS
  while (performance.now() < deadlineMs) {
    if (await isSettled(stage.database.query, wishes)) return []
    await sleep(100)
  }
  return [{ kind: 'stuck', text: `not at rest ${SETTLE_WITHIN_MS} ms after the load had ended` }]
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
