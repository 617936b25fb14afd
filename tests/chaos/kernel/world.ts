/* The kernel at work: two saga definitions, outbox, relay, bus, and consumers with inbox and effects, on one database.
 * Opened by each worker process of a drill; a drill of another kind may open it too. */
import type { Bus } from '@cloudphone/bus/bus'
import { type EventHandler, on, startConsumers } from '@cloudphone/bus/consumer'
import { openEmbeddedBus } from '@cloudphone/bus/embedded/embedded-bus'
import { openRabbitBus } from '@cloudphone/bus/rabbitmq/rabbit-bus'
import type { ReceivedEvent } from '@cloudphone/contracts/event'
import { systemIds } from '@cloudphone/contracts/id'
import type { ServiceName } from '@cloudphone/contracts/services'
import type { Subscription } from '@cloudphone/contracts/topology'
import { type AnyTx, openDatabase } from '@cloudphone/db/database'
import { holdExecutor } from '@cloudphone/db/executor'
import { notifier } from '@cloudphone/db/listen'
import type { DatabaseTarget } from '@cloudphone/db/target'
import { type CrashPoints, crashPoints } from '@cloudphone/observe/crash-point'
import type { Logger } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { openOutbox } from '@cloudphone/outbox/open-outbox'
import type { Outbox } from '@cloudphone/outbox/outbox'
import { openRelay } from '@cloudphone/outbox/relay'
import { openSagas, type Sagas } from '@cloudphone/saga/engine'
import {
  answerScheduler,
  hearAllocation,
  type PaymentCallback,
  type PurchaseInput,
  purchaseSaga,
  showPaymentPage,
  takePayment,
} from '@cloudphone/saga/testing/purchase'
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
} from '@cloudphone/saga/testing/purchase-events'
import { sql } from 'kysely'
import {
  answerRegistry,
  type CreationInput,
  creationSaga,
  creationTopology,
  fromRegistry,
  hearRegistry,
  ofCreation,
  toRegistry,
} from './creation-shape.ts'
import { paymentsAt, providerClient } from './provider-client.ts'

export const SCHEMA = 'kernel'

/** Every queue of the world. */
export const kernelTopology: readonly Subscription[] = [...purchaseTopology, ...creationTopology]

/** Where the bus is: in the world's own database, or at a broker. */
export type BusPlace = { readonly kind: 'embedded' } | { readonly kind: 'rabbitmq'; readonly url: string }

/** How patient the world is. Everything that a fault makes wait is in here. */
export interface Timing {
  /** Of sagas, lanes and consumers. */
  readonly leaseMs: number
  /** A try of a call takes at most so long. */
  readonly stepMs: number
  /** Waits before the retries of a step, and of a delivery. */
  readonly retryMs: readonly number[]
  /** An answer to an ask may take so long. */
  readonly replyMs: number
}

export interface WorldOptions {
  readonly url: DatabaseTarget
  readonly bus: BusPlace
  readonly providerUrl: string
  readonly timing: Timing
  readonly log: Logger
  readonly crash: CrashPoints
}

/** What somebody asks for: a purchase or a creation, under a key of theirs. */
export type Wish =
  | { readonly type: 'payment_purchase'; readonly input: PurchaseInput }
  | { readonly type: 'thing_creation'; readonly input: CreationInput }

export interface World {
  /** Under which it holds its sagas; null while its database is away. */
  readonly executorId: string | null
  /** Starts what was wished for, in one transaction. The same wish twice is one saga. */
  begin(wishes: readonly Wish[]): Promise<void>
  takePayment(callback: PaymentCallback): Promise<void>
  close(): Promise<void>
}

export async function openWorld(options: WorldOptions): Promise<World> {
  const { url, log, crash, timing } = options
  const session = { url, log }
  const metrics = openMetrics('kernel')
  const database = openDatabase<unknown>({
    ...session,
    schema: SCHEMA,
    poolSize: 8,
    applicationName: 'kernel',
  })
  const executor = holdExecutor({ ...session, applicationName: 'kernel executor' })
  const notify = notifier({ ...session, applicationName: 'kernel notifier' })
  const bus = openBus(options)
  const relay = openRelay({
    ...{ database, bus, executor, notifier: notify, log, metrics, crash },
    ...{ ttlMs: timing.leaseMs, sweepMs: 500 },
  })
  const outbox = openOutbox({ source: 'kernel', ids: systemIds, wake: relay.wake })
  const definitions = definitionsOf({ outbox, timing, providerUrl: options.providerUrl })
  await executor.held()
  const sagas = openSagas({
    ...{ database, executor, outbox, log, metrics, crash },
    ...{ definitions: Object.values(definitions), leaseTtlMs: timing.leaseMs, sweepMs: 200 },
  })
  await bus.declare()
  const consumers = await Promise.all(
    Object.entries(handlersOf({ outbox, sagas })).map(([service, handlers]) =>
      startConsumers({
        ...{ bus, database, service: service as ServiceName, handlers, log, metrics, crash },
        subscriptions: kernelTopology,
      }),
    ),
  )
  await relay.start()
  await sagas.run()
  return {
    get executorId() {
      return executor.current?.id ?? null
    },
    begin: (wishes) => database.transaction((tx) => beginAll(tx, sagas, definitions, wishes)),
    takePayment: async (callback) => {
      await database.transaction((tx) => takePayment(tx, { outbox, sagas }, callback))
    },
    async close() {
      await sagas.stop()
      await relay.stop()
      await Promise.all(consumers.map((one) => one.close()))
      await bus.close()
      await Promise.all([executor.close(), notify.close()])
      await database.close()
    },
  }
}

/** A bus without consumers: for workers, and for who counts what is left in it. */
export function openBus({
  url,
  bus,
  timing,
  log,
  crash = crashPoints(undefined),
}: Pick<WorldOptions, 'url' | 'bus' | 'timing' | 'log'> & { crash?: CrashPoints }): Bus {
  const shared = {
    ...{ log, crash, metrics: openMetrics('bus'), subscriptions: kernelTopology },
    retryDelaysMs: timing.retryMs,
  }
  return bus.kind === 'embedded'
    ? openEmbeddedBus({ ...shared, url, consumerTtlMs: timing.leaseMs, pollMs: 200 })
    : openRabbitBus({ ...shared, url: bus.url, confirmTimeoutMs: 5_000 })
}

/** The world's definitions: data, whoever asks for them. */
export function definitionsOf({
  outbox,
  timing,
  providerUrl,
}: { outbox: Outbox } & Pick<WorldOptions, 'timing' | 'providerUrl'>) {
  const { stepMs, retryMs, replyMs } = timing
  const retry = { timeoutMs: stepMs, delaysMs: retryMs }
  const provider = providerClient(providerUrl)
  return {
    payment_purchase: purchaseSaga({
      outbox,
      retry,
      payments: paymentsAt(provider),
      allocateWithinMs: replyMs,
    }),
    thing_creation: creationSaga({ outbox, retry, provider, registeredWithinMs: replyMs }),
  }
}

async function beginAll(
  tx: AnyTx,
  sagas: Sagas,
  definitions: ReturnType<typeof definitionsOf>,
  wishes: readonly Wish[],
): Promise<void> {
  for (const wish of wishes) {
    if (wish.type === 'payment_purchase') {
      const { input } = wish
      await sagas.start(tx, { definition: definitions[wish.type], businessKey: input.orderId, input })
    } else {
      const { input } = wish
      await sagas.start(tx, { definition: definitions[wish.type], businessKey: input.thingId, input })
    }
  }
}

function handlersOf({
  outbox,
  sagas,
}: {
  outbox: Outbox
  sagas: Sagas
}): Partial<Record<ServiceName, EventHandler<unknown>[]>> {
  const ready = async (): Promise<void> => undefined
  return {
    scheduler: [
      on(
        [AllocateRequested, ReleaseRequested],
        told('scheduler.device-allocate', (tx, event) => answerScheduler(tx, outbox, event)),
      ),
    ],
    billing: [
      on(
        [AllocateCompleted, AllocateFailed],
        told('billing-service.saga-device-allocate', (tx, event) => hearAllocation(tx, sagas, event)),
      ),
    ],
    users: [
      on(
        toRegistry,
        told('users.thing', (tx, event) => answerRegistry(tx, outbox, event)),
      ),
    ],
    devices: [
      on(
        fromRegistry,
        told('devices.thing-registered', (tx, event) => hearRegistry(tx, sagas, event)),
      ),
    ],
    notifications: [
      on(PaymentRequested, told('notifications.payment-requested', showPaymentPage)),
      on([OrderPaid, OrderCancelled, OrderRefunded], told('notifications.order', ready)),
      on(ofCreation, told('notifications.thing', ready)),
    ],
  }
}

/** A handler that also leaves a mark of its having run, in the same transaction: one that runs twice leaves two. */
function told<Event extends ReceivedEvent>(
  queue: string,
  handle: (tx: AnyTx, event: Event) => Promise<void>,
): (tx: AnyTx, event: Event) => Promise<void> {
  return async (tx, event) => {
    await handle(tx, event)
    await sql`
      insert into effect (queue, event_id, aggregate, version)
      values (${queue}, ${event.id}, ${`${event.aggregateType}:${event.subject}`}, ${event.aggregateVersion})`.execute(
      tx,
    )
  }
}

/** The world's own table: one row for each time a handler has run. No unique key. */
export const EFFECT_TABLE = `
  create table effect (
    position bigint generated always as identity, queue text not null, event_id uuid not null,
    aggregate text not null, version integer not null);`
