/* The same fact for every contestant: a thing moved, with 300 bytes to tell, and one row as its effect. */
import { withClient } from '@cloudphone/db/client'
import type { DatabaseTarget } from '@cloudphone/db/target'
import { demandEqual, VoidRound } from '../contestant.ts'
import { numbers } from './tables.ts'

/** A round of events or jobs that lie ready when it begins. */
export interface EventOrder {
  readonly events: number
  /** One at a time, or as many as the contestant's own way of batching takes. */
  readonly taking: 'one' | 'batch'
}

export interface EventOutcome {
  readonly events: number
  /** From the start of the relay, or the first job in hand, to the last committed effect. */
  readonly elapsedMs: number
}

/** How many things there are: the events of one are in order. */
export const THINGS = 500

export const NOTE = 'x'.repeat(300)

export interface Move {
  readonly thing: string
  /** From 1, without a gap. */
  readonly version: number
}

/** The n-th move: things take turns. */
export function moveOf(n: number): Move {
  return { thing: `thing-${n % THINGS}`, version: Math.floor(n / THINGS) + 1 }
}

/** Without a unique key, so that an effect which happens twice shows. */
const EFFECT_TABLE = `create table effect (
  position bigint generated always as identity, event_id uuid not null, thing text not null, version integer not null)`

/** Makes the table of effects in a schema. */
export async function makeEffectTable(url: DatabaseTarget, schema: string): Promise<void> {
  await withClient(url, 'bench', async (client) => {
    await client.query(`create schema if not exists ${schema}; set search_path to ${schema}; ${EFFECT_TABLE}`)
  })
}

/** @throws VoidRound unless each event has exactly one effect. */
export async function auditEffects(url: DatabaseTarget, schema: string, events: number): Promise<void> {
  const found = await numbers<'effects' | 'distinct_events'>(
    url,
    `select count(*) as effects, count(distinct event_id) as distinct_events from ${schema}.effect`,
  )
  demandEqual('effects', found.effects, events)
  demandEqual('events with an effect', found.distinct_events, events)
}

/** @throws VoidRound unless the effects on each thing happened in the order of its versions. */
export async function auditOrder(url: DatabaseTarget, schema: string): Promise<void> {
  const { overtaken = 0 } = await numbers<'overtaken'>(
    url,
    `select count(*) as overtaken from (
       select version - lag(version, 1, 0) over (partition by thing order by position) as step from ${schema}.effect
     ) as steps where step <> 1`,
  )
  if (overtaken > 0) throw new VoidRound(`the round is void: ${overtaken} effects out of order`)
}
