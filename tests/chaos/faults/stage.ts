import { setTimeout as sleep } from 'node:timers/promises'
import { silentLog } from '@cloudphone/observe/log'
import type { RabbitNode } from '@cloudphone/testing/rabbitmq'
import { openTcpProxy, type TcpProxy } from '../../src/tcp-proxy.ts'
import type { Crew, Worker } from '../kernel/crew.ts'
import type { CellDatabase, Lane } from '../kernel/lane.ts'
import type { Order } from '../kernel/orders.ts'
import type { Provider, ProviderBooks } from '../kernel/provider.ts'
import { type BusPlace, openBus, type Timing } from '../kernel/world.ts'

/** What all scenarios share: servers, and processes that have loaded. */
export interface Grounds {
  readonly lane: Lane
  readonly crew: Crew
  readonly provider: Provider
  /** Only where a scenario needs it. */
  readonly broker: RabbitNode | undefined
}

export interface StageOptions {
  /** Names the virtual host. */
  readonly name: string
  readonly bus: BusPlace['kind']
  /** The server to which each worker goes through a door of its own. */
  readonly proxied?: 'postgres' | 'rabbitmq' | undefined
}

/** Nearer to a platform's than the matrix's: here outages last, and nothing shall give up over them. */
export const timing: Timing = {
  leaseMs: 2_000,
  stepMs: 5_000,
  retryMs: [250, 1_000, 5_000],
  replyMs: 240_000,
}

const WORKERS = 2
/** Each has a row of quota: one alone would let its creations pass only one after the other. */
export const TENANTS = 32
const POOL_DEVICES = 20_000
const ANSWER_WITHIN_MS = 5_000
/** Longer than any fault. */
const TAKEN_WITHIN_MS = 90_000
const DRAIN_WITHIN_MS = 20_000
const ASK_AGAIN_MS = 50

/** A world with two workers on real servers, and the means to hurt them. */
export interface Stage extends AsyncDisposable {
  readonly lane: Lane
  readonly database: CellDatabase
  readonly books: ProviderBooks
  readonly bus: BusPlace
  readonly virtualHost: string
  /** One for each worker, if any. */
  readonly proxies: readonly TcpProxy[]
  /** @throws Error when no scenario was to need it. */
  readonly broker: RabbitNode
  /** As clients behind a balancer do: asks the workers in turn, and the next when one gives no answer, until it is taken. */
  insist(order: Order): Promise<void>
  /** kill -9 of the nth worker; the next one is opened at once. */
  kill(slot: number): Promise<void>
  /** SIGTERM to the nth worker; when it has drained the next one is opened. @throws Error when it does not drain. */
  roll(slot: number): Promise<void>
  /** From now on nobody insists. */
  giveUp(): void
  /** Closes what lives in good order. @throws Error when one does not close. */
  close(): Promise<void>
}

export async function openStage(grounds: Grounds, options: StageOptions): Promise<Stage> {
  const { lane, crew, provider } = grounds
  // What is open already is closed when the rest does not open.
  await using stack = new AsyncDisposableStack()
  const database = await lane.database()
  stack.defer(() => database.drop())
  await database.query(
    `insert into pool_device select 'more-' || n from generate_series(1, ${POOL_DEVICES}) n`,
  )
  await database.query(
    `insert into quota select 'tenant-' || n, 0, 1000000 from generate_series(0, ${TENANTS - 1}) n`,
  )
  await database.query('alter table effect add column at timestamptz not null default clock_timestamp()')
  const books = provider.open()
  stack.defer(() => books.close())
  const bus = await busOf(grounds, options)
  const proxies = await openProxies(database, bus, options)
  stack.defer(async () => {
    await Promise.all(proxies.map((proxy) => proxy.close()))
  })
  const slots: Worker[] = []

  const employ = async (slot: number): Promise<void> => {
    const worker = await crew.take()
    slots[slot] = worker
    const place = placeOf({ slot, database, bus, proxy: proxies[slot], proxied: options.proxied })
    await worker.order({ verb: 'open', world: { ...place, providerUrl: books.url, timing } })
  }
  let asked = 0
  const living = (): Worker[] => slots.filter((worker) => !worker.hasEnded)
  const insist = async (order: Order): Promise<void> => {
    const deadlineMs = performance.now() + TAKEN_WITHIN_MS
    for (;;) {
      const workers = living()
      asked += 1
      const worker = workers[asked % Math.max(1, workers.length)]
      const taken = worker === undefined ? false : await tried(worker, order)
      if (taken) return
      if (closed.signal.aborted || performance.now() > deadlineMs)
        throw new Error(`nobody took the order to ${order.verb}`)
      await sleep(ASK_AGAIN_MS)
    }
  }
  const closed = new AbortController()
  stack.defer(async () => {
    closed.abort()
    for (const worker of living()) {
      worker.signal('SIGKILL')
      await worker.ended
    }
  })
  await Promise.all(Array.from({ length: WORKERS }, (_, slot) => employ(slot)))
  const opened = stack.move()

  return {
    ...{ lane, database, books, bus, proxies, insist },
    virtualHost: hostName(options),
    get broker() {
      return brokerOf(grounds)
    },
    async kill(slot) {
      const victim = slots[slot]
      victim?.signal('SIGKILL')
      if ((await victim?.ended) !== 'SIGKILL') throw new Error(`worker ${slot} was not killed`)
      await employ(slot)
    },
    async roll(slot) {
      const victim = slots[slot]
      victim?.signal('SIGTERM')
      const how = await within(victim?.ended, DRAIN_WITHIN_MS, `worker ${slot} to drain`)
      if (how !== null) throw new Error(`worker ${slot} did not drain but ended by ${how}`)
      await employ(slot)
    },
    giveUp: () => closed.abort(),
    async close() {
      await Promise.all(
        living().map(async (worker) => {
          await within(worker.order({ verb: 'close' }), DRAIN_WITHIN_MS, 'a worker to close')
          crew.giveBack(worker)
          slots.splice(slots.indexOf(worker), 1)
        }),
      )
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  }
}

function brokerOf({ broker }: Grounds): RabbitNode {
  if (broker === undefined) throw new Error('this scenario needs RabbitMQ')
  return broker
}

function hostName({ name }: StageOptions): string {
  return `faults ${name}`
}

async function busOf(grounds: Grounds, options: StageOptions): Promise<BusPlace> {
  if (options.bus === 'embedded') return { kind: 'embedded' }
  const [url = ''] = await brokerOf(grounds).virtualHosts([hostName(options)])
  const bus: BusPlace = { kind: 'rabbitmq', url }
  // As a platform does before its first event: a queue of 3.10 that is younger than a second does not survive a kill -9.
  const declarer = openBus({ url: '', bus, timing, log: silentLog() })
  await declarer.declare()
  await declarer.close()
  return bus
}

async function openProxies(
  database: CellDatabase,
  bus: BusPlace,
  { proxied }: StageOptions,
): Promise<TcpProxy[]> {
  if (proxied === undefined) return []
  const port = bus.kind === 'rabbitmq' ? Number(new URL(bus.url).port) : 0
  const target = proxied === 'postgres' ? { path: socketOf(database.target(0)) } : port
  return await Promise.all(Array.from({ length: WORKERS }, () => openTcpProxy(target)))
}

function socketOf(target: string): string {
  const { searchParams } = new URL(target)
  return `${searchParams.get('host')}/.s.PGSQL.${searchParams.get('port') ?? 5432}`
}

/** Where a worker finds its servers: through its door to one of them, if it has one. */
function placeOf({
  slot,
  database,
  bus,
  proxy,
  proxied,
}: {
  slot: number
  database: CellDatabase
  bus: BusPlace
  proxy: TcpProxy | undefined
  proxied: StageOptions['proxied']
}): { url: string; bus: BusPlace } {
  const direct = { url: database.target(slot), bus }
  if (proxy === undefined) return direct
  if (proxied === 'rabbitmq' && bus.kind === 'rabbitmq')
    return { ...direct, bus: { ...bus, url: throughPort(bus.url, proxy.port) } }
  return { ...direct, url: throughPort(direct.url, proxy.port) }
}

function throughPort(target: string, port: number): string {
  const url = new URL(target)
  url.hostname = '127.0.0.1'
  url.port = String(port)
  url.search = ''
  return url.href
}

/** Whether a worker took an order: one that is dying, or without its servers, does not, or does not say so. */
async function tried(worker: Worker, order: Order): Promise<boolean> {
  try {
    await within(worker.order(order), ANSWER_WITHIN_MS, `a worker to ${order.verb}`)
    return true
  } catch {
    return false
  }
}

async function within<Result>(
  work: Promise<Result> | undefined,
  ms: number,
  what: string,
): Promise<Result | undefined> {
  const over = new AbortController()
  try {
    return await Promise.race([
      work,
      sleep(ms, undefined, { signal: over.signal }).then(() => {
        throw new Error(`waited ${ms} ms in vain for ${what}`)
      }),
    ])
  } finally {
    over.abort()
  }
}
