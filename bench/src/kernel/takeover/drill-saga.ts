/* A saga for kills: three effects outside, each made under its key, and two rows in its own database. Whoever works on it
 * leaves a touch, so that it can be seen who went on with what and when. */
import { setTimeout as sleep } from 'node:timers/promises'
import { withClient } from '@cloudphone/db/client'
import type { AnyTx } from '@cloudphone/db/database'
import type { DatabaseTarget } from '@cloudphone/db/target'
import { saga } from '@cloudphone/saga/builder'
import type { CallContext, StepContext } from '@cloudphone/saga/definition'
import { sql } from 'kysely'
import type pg from 'pg'

export const SCHEMA = 'bench'
export const CALLS = 3
export const LOCALS = 2
export const LEASE_TTL_MS = 10_000

/** How long an effect takes: long enough that a kill finds sagas in the middle of one. */
const EFFECT_MS = 100

/** Local effects have no unique key: what happens twice shall show. */
export async function makeWorld(url: DatabaseTarget): Promise<void> {
  await withClient(url, 'bench', (client) =>
    client.query(`
      set search_path to ${SCHEMA};
      create table outside (key text primary key, saga_id text not null);
      create table inside (saga_id text not null, step text not null);
      create table touch (saga_id text not null, worker text not null, at timestamptz not null default clock_timestamp());
      create index on touch (saga_id, at)`),
  )
}

/** The definition as `worker` runs it; `world` reaches the outside. Who only starts sagas needs neither to work. */
export function drillSaga({ world, worker }: { world: pg.Pool; worker: string }) {
  const touch = (sagaId: string) => ({
    text: `insert into ${SCHEMA}.touch (saga_id, worker) values ($1, $2)`,
    values: [sagaId, worker],
  })
  const call = async (_: unknown, { sagaId, key, signal }: CallContext): Promise<void> => {
    await world.query(touch(sagaId))
    await sleep(EFFECT_MS, undefined, { signal })
    await world.query(`insert into ${SCHEMA}.outside (key, saga_id) values ($1, $2) on conflict do nothing`, [
      ...[key, sagaId],
    ])
  }
  const local =
    (step: string) =>
    async (tx: AnyTx, _: unknown, { sagaId }: StepContext): Promise<void> => {
      await sql`insert into inside (saga_id, step) values (${sagaId}, ${step})`.execute(tx)
      await sql`insert into touch (saga_id, worker) values (${sagaId}, ${worker})`.execute(tx)
    }
  return saga('bench_takeover', 1, { timeoutMs: 600_000 })
    .input<{ n: number }>()
    .call('ONE', call)
    .local('TWO', local('two'))
    .call('THREE', call)
    .local('FOUR', local('four'))
    .call('FIVE', call)
    .end()
}
