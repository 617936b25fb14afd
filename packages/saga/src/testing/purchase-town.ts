import { on, startConsumers } from '@cloudphone/bus/consumer'
import { EMBEDDED_BUS_MIGRATIONS, openEmbeddedBus } from '@cloudphone/bus/embedded/embedded-bus'
import { INBOX_MIGRATIONS } from '@cloudphone/bus/inbox'
import { systemIds } from '@cloudphone/contracts/id'
import { openDatabase } from '@cloudphone/db/database'
import { holdExecutor } from '@cloudphone/db/executor'
import { notifier } from '@cloudphone/db/listen'
import { APP_NOW_MIGRATIONS, migrate } from '@cloudphone/db/migrate'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { OUTBOX_MIGRATIONS, openOutbox } from '@cloudphone/outbox/open-outbox'
import { openRelay } from '@cloudphone/outbox/relay'
import { createTestDatabase, type TestClock, testClock } from '@cloudphone/testing/postgres'
import { openSagas, SAGA_MIGRATIONS, type Sagas } from '../engine.ts'
import {
  answerScheduler,
  hearAllocation,
  type PaymentCallback,
  type Payments,
  PURCHASE_TABLES,
  purchaseSaga,
  showPaymentPage,
  takePayment,
} from './purchase.ts'
import {
  AllocateCompleted,
  AllocateFailed,
  AllocateRequested,
  OrderCancelled,
  OrderPaid,
  OrderRefunded,
  PaymentRequested,
  purchaseTopology,
  ReleaseRequested,
} from './purchase-events.ts'

/** The rooms of a purchase in one process, over a real outbox and a real bus. */
export interface PurchaseTown extends AsyncDisposable {
  readonly clock: TestClock
  readonly sagas: Sagas
  /** Starts a purchase of the plan `basic`; the same order twice is one purchase. */
  buy(orderId: string, planId?: string): Promise<string>
  pay(callback: Omit<PaymentCallback, 'at'>): Promise<'first' | 'repeated'>
  /** Keeps the scheduler from hearing anything until it is opened again. */
  closeScheduler(): Promise<void>
  openScheduler(): Promise<void>
  /** Resolves when no saga is due and no event is on its way to an open room. */
  settled(): Promise<void>
  rows(query: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]>
}

const SCHEMA = 'purchase'
const log = silentLog()

export async function openPurchaseTown({ devices }: { devices: number }): Promise<PurchaseTown> {
  const testDatabase = await createTestDatabase({
    schema: SCHEMA,
    migrations: [APP_NOW_MIGRATIONS, SAGA_MIGRATIONS, OUTBOX_MIGRATIONS, INBOX_MIGRATIONS],
  })
  const clock = testClock(testDatabase)
  const session = { url: testDatabase.url, log }
  await migrate({ ...session, schema: 'bus', directories: [APP_NOW_MIGRATIONS, EMBEDDED_BUS_MIGRATIONS] })
  const database = openDatabase<unknown>({ ...session, schema: SCHEMA, poolSize: 8, applicationName: 'town' })
  await database.pool.query(`${PURCHASE_TABLES}
    create table payment_window (key text primary key, fence bigint not null, status text not null);
    insert into plan values ('basic', 9900000);
    insert into pool_device select 'device-' || n from generate_series(1, ${devices}) n`)
  const metrics = openMetrics('town')
  const crash = crashPoints(undefined)
  const executor = holdExecutor({ ...session, applicationName: 'town executor' })
  const notify = notifier({ ...session, applicationName: 'town notifier' })
  const bus = openEmbeddedBus({ ...session, metrics, crash, subscriptions: purchaseTopology })
  const relay = openRelay({ database, bus, executor, notifier: notify, log, metrics, crash })
  const outbox = openOutbox({ source: 'town', ids: systemIds, wake: relay.wake })
  const definition = purchaseSaga({ outbox, payments: paymentsIn(database.pool) })
  await executor.held()
  const sagas = openSagas({ database, executor, definitions: [definition], outbox, log, metrics, clock })
  const rooms = { bus, database, log, metrics, crash, subscriptions: purchaseTopology }
  const openScheduler = () =>
    startConsumers({
      ...rooms,
      service: 'scheduler',
      handlers: [
        on([AllocateRequested, ReleaseRequested], (tx, event) => answerScheduler(tx, outbox, event)),
      ],
    })
  await bus.declare()
  const others = await Promise.all([
    startConsumers({
      ...rooms,
      service: 'billing',
      handlers: [on([AllocateCompleted, AllocateFailed], (tx, event) => hearAllocation(tx, sagas, event))],
    }),
    startConsumers({
      ...rooms,
      service: 'notifications',
      handlers: [
        on(PaymentRequested, showPaymentPage),
        on([OrderPaid, OrderCancelled, OrderRefunded], async () => undefined),
      ],
    }),
  ])
  let scheduler = await openScheduler()
  await relay.start()
  const rows = async (query: string, values: readonly unknown[] = []) =>
    (await database.pool.query<Record<string, unknown>>(query, [...values])).rows
  const trace = async () =>
    JSON.stringify(
      await rows(`select (select count(*) from event_outbox) as events,
        (select sum(version) from saga_state) as versions, (select count(*) from inbox) as heard`),
    )
  return {
    clock,
    sagas,
    rows,
    async buy(orderId, planId = 'basic') {
      const { sagaId } = await database.transaction((tx) =>
        sagas.start(tx, { definition, businessKey: orderId, input: { orderId, planId } }),
      )
      return sagaId
    },
    pay: (callback) =>
      database.transaction((tx) =>
        takePayment(tx, { outbox, sagas }, { ...callback, at: clock.now().toISOString() }),
      ),
    closeScheduler: () => scheduler.close(),
    async openScheduler() {
      scheduler = await openScheduler()
    },
    async settled() {
      for (let before = ''; before !== (await trace()); ) {
        before = await trace()
        await sagas.drain()
        await relay.drain()
        await bus.idle()
      }
    },
    async [Symbol.asyncDispose]() {
      await sagas.stop()
      await relay.stop()
      await Promise.all([...others, scheduler].map((one) => one.close()))
      await bus.close()
      await Promise.all([executor.close(), notify.close()])
      await database.close()
      await testDatabase.drop()
    },
  }
}

/** A payment provider of one table. A closed window stays as a tombstone, and an older fence changes nothing. */
function paymentsIn(pool: {
  query(text: string, values: unknown[]): Promise<{ rowCount: number | null }>
}): Payments {
  const move = async (key: string, fence: number, status: string): Promise<void> => {
    const { rowCount } = await pool.query(
      `insert into payment_window values ($1, $2, $3)
       on conflict (key) do update set fence = excluded.fence,
         status = case when payment_window.status = 'closed' then 'closed' else excluded.status end
       where payment_window.fence <= excluded.fence`,
      [key, fence, status],
    )
    if (rowCount === 0) throw new Error(`payment ${key}: fence ${fence} is stale`)
  }
  return {
    open: ({ key, fence }) => move(key, fence, 'open'),
    close: ({ key, fence }) => move(key, fence, 'closed'),
  }
}
