import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Figure } from '../harness/figure.ts'
import { type Suite, type Task, UsageError } from '../harness/program.ts'
import { type Broker, openBrokerNode } from '../kernel/broker.ts'
import { measureEmbedded } from '../kernel/embedded.ts'
import { measureEnqueue } from '../kernel/enqueue.ts'
import { Disturbances } from '../kernel/others.ts'
import { measureRabbitLatency, measureRelay } from '../kernel/rabbit.ts'
import type { Setting } from '../kernel/rounds.ts'
import { measureSagas } from '../kernel/sagas.ts'
import { openStage } from '../kernel/stage.ts'
import { measureTakeover, PEERS_TAKE_OVER } from '../kernel/takeover/takeover.ts'

/** The kernel beside what people would use instead, on one durable PostgreSQL, in interleaved rounds. */
export const kernel: Suite = {
  summary: 'sagas, outbox, bus and take-over, beside DBOS, graphile-worker and pg-boss',
  options: {
    rounds: { default: '5', help: 'rounds of each contestant, in turn' },
    only: { default: '', help: 'some of sagas,enqueue,embedded,relay,journey,takeover; all when absent' },
    profile: { default: '', help: 'folder for a CPU profile of each round (they cost some speed)' },
  },
  switches: { quick: 'two short rounds: for a look, not for a figure' },
  run: async (task) => {
    if (process.platform !== 'linux') throw new UsageError('the suite reads /proc, so it needs Linux')
    const wanted = chosen(task)
    const extent = await extentOf(task)
    const disturbances = new Disturbances()
    using interruption = awaitInterruption()
    await using servers = new AsyncDisposableStack()
    const stage = servers.use(await openStage())
    const broker = wanted.some((name) => overRabbit.has(name))
      ? servers.use(await openBrokerNode())
      : undefined
    const facts = {
      ...(await stage.facts()),
      ...(broker && { RabbitMQ: broker.version }),
      peers: await peerVersions(),
    }
    const rounds = task.isOn('quick') ? 2 : task.number('rounds')
    const measuring = measureAll(wanted, { setting: { stage, task, disturbances, rounds }, extent, broker })
    measuring.catch(() => undefined) // heard by the race, unless an interruption has won it
    const figures = await Promise.race([measuring, interruption.interrupted])
    const notes = wanted.includes('takeover') ? { "the peers' take-over": PEERS_TAKE_OVER } : {}
    return { figures, facts: { ...facts, ...notes, disturbed: disturbances.toString() } }
  },
}

async function measureAll(
  wanted: readonly Measurement[],
  { setting, extent, broker }: { setting: Setting; extent: Extent; broker: Broker | undefined },
): Promise<Figure[]> {
  const figures: Figure[] = []
  for (const name of wanted) {
    const found = await measurements[name](setting, extent, broker)
    for (const { name: what, ours, peer } of found)
      setting.task.progress(
        `  ${what}: ${ours.toPrecision(4)}${peer === undefined ? '' : ` beside ${peer.toPrecision(4)}`}`,
      )
    figures.push(...found)
  }
  return figures
}

/** PostgreSQL runs apart from us: whoever interrupts the suite shall not leave it behind, so an interruption is an error. */
function awaitInterruption(): Disposable & { readonly interrupted: Promise<never> } {
  const { promise, reject } = Promise.withResolvers<never>()
  promise.catch(() => undefined) // heard by the race
  const end = (signal: NodeJS.Signals): void => reject(new Error(`interrupted by ${signal}`))
  process.once('SIGINT', end).once('SIGTERM', end)
  return {
    interrupted: promise,
    [Symbol.dispose]: () => process.off('SIGINT', end).off('SIGTERM', end),
  }
}

/** How much of the full work, and whether profiles are taken. */
interface Extent {
  readonly share: number
  readonly profileDir: string | undefined
}

type Measure = (setting: Setting, extent: Extent, broker: Broker | undefined) => Promise<Figure[]>

const measurements = {
  sagas: measureSagas,
  enqueue: measureEnqueue,
  embedded: measureEmbedded,
  relay: (setting, extent, broker) => measureRelay(setting, { ...extent, broker: needed(broker) }),
  journey: (setting, extent, broker) => measureRabbitLatency(setting, { ...extent, broker: needed(broker) }),
  takeover: measureTakeover,
} satisfies Record<string, Measure>
type Measurement = keyof typeof measurements
const overRabbit: ReadonlySet<Measurement> = new Set<Measurement>(['relay', 'journey'])

function needed(broker: Broker | undefined): Broker {
  if (broker === undefined) throw new Error('the broker was not started')
  return broker
}

function chosen(task: Task): readonly Measurement[] {
  const all = Object.keys(measurements) as Measurement[]
  const asked = task.option('only').split(',').filter(Boolean)
  const unknown = asked.find((name) => !Object.hasOwn(measurements, name))
  if (unknown !== undefined)
    throw new UsageError(`--only: there is no '${unknown}'; there are ${all.join(', ')}`)
  return asked.length === 0 ? all : all.filter((name) => asked.includes(name))
}

async function extentOf(task: Task): Promise<Extent> {
  const dir = task.option('profile')
  if (dir !== '') await mkdir(dir, { recursive: true })
  return { share: task.isOn('quick') ? 0.3 : 1, profileDir: dir === '' ? undefined : dir }
}

async function peerVersions(): Promise<string> {
  const names = ['@dbos-inc/dbos-sdk', 'graphile-worker', 'pg-boss']
  const modules = fileURLToPath(new URL('../../../node_modules', import.meta.url))
  const versions = names.map(async (name) => {
    const { version }: { version: string } = JSON.parse(
      await readFile(join(modules, name, 'package.json'), 'utf8'),
    )
    return `${name} ${version}`
  })
  return (await Promise.all(versions)).join(', ')
}
