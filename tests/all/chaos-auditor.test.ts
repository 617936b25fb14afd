import { withClient } from '@cloudphone/db/client'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { audit, type Complaint } from '../chaos/kernel/auditor.ts'
import { isSettled, wishesOf } from '../chaos/kernel/cell.ts'
import { timing } from '../chaos/kernel/cells.ts'
import { type CellDatabase, type Lane, openLane } from '../chaos/kernel/lane.ts'
import { openPayer } from '../chaos/kernel/payer.ts'
import { openProvider, type Touch } from '../chaos/kernel/provider.ts'
import { openWorld, SCHEMA } from '../chaos/kernel/world.ts'
import { until } from '../src/until.ts'

/* An auditor that finds nothing proves nothing until it is seen to find what is there: a run without any fault, in which one
 * thing after the other is put out of order. */

const promised = wishesOf('run')
let lane: Lane
let database: CellDatabase
let history: readonly Touch[]

beforeAll(async () => {
  lane = await openLane()
  database = await lane.database()
  await using provider = await openProvider()
  const books = provider.open()
  const world = await openWorld({
    ...{ url: database.target(0), bus: { kind: 'embedded' }, providerUrl: books.url, timing },
    ...{ log: silentLog(), crash: crashPoints(undefined) },
  })
  const payer = openPayer({
    query: database.query,
    deliver: world.takePayment,
    pays: (orderId) => orderId.startsWith('paid'),
  })
  const wishes = promised.map(({ wish }) => wish)
  await world.begin(wishes)
  await until('the sagas to end', () => isSettled(database.query, wishes))
  await payer.close()
  await world.close()
  history = books.history
})
afterAll(async () => {
  await database?.drop()
  await lane?.[Symbol.asyncDispose]()
})

/** What the auditor finds after `tampering` with the database, which is then as it was. */
async function found(tampering: string, of: readonly Touch[] = history): Promise<Complaint['kind'][]> {
  return await withClient(database.target(1), 'tampering', async (client) => {
    await client.query(`set search_path to ${SCHEMA}; begin; ${tampering}`)
    const query = async <Row extends object>(text: string, values: readonly unknown[] = []) =>
      (await client.query<Row>(text, [...values])).rows
    const bus = {
      statistics: async () =>
        (
          await query<{ queue: string; left: number }>(
            'select queue, count(*)::integer as left from bus.bus_delivery group by 1',
          )
        ).map(({ queue, left }) => ({ queue, ready: left, delayed: 0, inFlight: 0, dead: 0 })),
    }
    const complaints = await audit({ query, bus, history: of, promised })
    await client.query('rollback')
    return complaints.map(({ kind }) => kind)
  })
}

test('a run without a fault has nothing to complain of', async () => {
  expect(await found('select 1')).toEqual([])
})

const anEffect = 'select min(position) from effect'
test.each<[string, string, Complaint['kind'][]]>([
  ['an event that a queue has not applied', `delete from effect where position = (${anEffect})`, ['lost']],
  [
    'an event that was applied twice',
    `insert into effect (queue, event_id, aggregate, version)
       select queue, event_id, aggregate, version from effect where position = (select max(position) from effect)`,
    ['doubled'],
  ],
  ['an event that never left', `update event_outbox set status = 'pending' where position = 1`, ['lost']],
  [
    'an order that was told before its payment was asked for',
    `update effect set version = 9 where position =
       (select min(position) from effect where queue = 'scheduler.device-allocate' and aggregate = 'order:declined-run-1')`,
    ['disordered'],
  ],
  [
    'a delivery that is still in its queue',
    `insert into bus.bus_delivery (queue, event_id, event_type, aggregate, envelope)
       values ('users.thing', gen_random_uuid(), 'thing.announced', 'thing:1', '{}')`,
    ['leaked'],
  ],
  [
    'a step that was done twice',
    `insert into saga_step_log (saga_id, step, direction, attempt, status, fence, started_at, ended_at)
       select saga_id, step, direction, attempt, status, 1000, now(), now() from saga_step_log
       where step = 'CREATE_RESOURCE' and status = 'done' limit 1`,
    ['doubled'],
  ],
  [
    'a step under an old fence',
    `insert into saga_step_log (saga_id, step, direction, attempt, status, fence, started_at, ended_at)
       select saga_id, 'LATE', direction, attempt, 'failed', 0, now(), now() from saga_step_log limit 1`,
    ['stale'],
  ],
  [
    'a device that a cancelled order still has',
    `update pool_device set order_id = 'declined-run-1' where id = 'device-32'`,
    ['leaked'],
  ],
  ['a port without its row', `delete from thing_port where thing_id = 'wanted-run-1'`, ['lost']],
  ['a second row of a port', `insert into thing_port select * from thing_port limit 1`, ['doubled']],
  [
    'a payment that was booked twice',
    `insert into ledger select * from ledger limit 1`,
    ['doubled', 'doubled'],
  ],
  ['quota that nobody uses', 'update quota set used = used + 1', ['leaked']],
  [
    'a saga that stands still',
    `set local session_replication_role = replica;
      update saga_state set status = 'QUARANTINED', ended_at = null where business_key = 'wanted-run-1'`,
    // And what it has by now, no finished saga owns.
    ['stuck', 'leaked', 'leaked', 'leaked', 'leaked', 'leaked', 'leaked', 'leaked'],
  ],
  [
    'a saga that turned back without need',
    `delete from saga_state where business_key = 'declined-run-1'`,
    ['lost'],
  ],
])('it finds %s', async (_, tampering, kinds) => {
  expect(await found(tampering)).toEqual(kinds)
})

test('it finds a resource that was made twice, a port with two owners, and an effect under an old fence', async () => {
  const made = history.find(({ kind, outcome }) => kind === 'port' && outcome === 'created')
  if (made === undefined) throw new Error('no port was made')
  const alive = history.filter(({ outcome }) => outcome === 'created').at(-1) ?? made
  expect(await found('select 1', [...history, alive])).toContain('doubled')
  const rival = { ...made, key: 'somebody:ALLOCATE_PORTS', owner: 'somebody' }
  expect(await found('select 1', [made, rival, ...history.filter((touch) => touch !== made)])).toContain(
    'doubled',
  )
  expect(
    await found('select 1', [...history, { ...made, op: 'destroy', fence: 0, outcome: 'absent' }]),
  ).toEqual(['stale'])
})
