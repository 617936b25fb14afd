import { setTimeout as sleep } from 'node:timers/promises'
import { silentLog } from '@cloudphone/observe/log'
import { type RabbitNode, startRabbitNode } from '@cloudphone/testing/rabbitmq'
import { type CellResult, runCell } from './cell.ts'
import { type Cell, nameOf, timing } from './cells.ts'
import { openCrew } from './crew.ts'
import { openLane } from './lane.ts'
import { openProvider } from './provider.ts'
import { type Broker, type Ground, Scene } from './scene.ts'
import { openBus } from './world.ts'

export interface FieldOptions {
  readonly cells: readonly Cell[]
  /** The visit of its point at which a cell's fault happens. */
  readonly nthOf: (cell: Cell) => number
  readonly progress: (line: string) => void
}

/** Cells run side by side: much of a cell is waiting for a lease to run out. */
const LANES = 3

/**
 * Carries cells out, several at a time, each lane on a PostgreSQL of its own. There is one RabbitMQ: the cells that need it go
 * through one lane, one after the other.
 */
export async function runCells({ cells, nthOf, progress }: FieldOptions): Promise<CellResult[]> {
  // Those with one instance first: a scene does not change its cast for every cell.
  const ordinary = [1, 2].flatMap((many) =>
    cells.filter(({ bus, instances }) => bus === 'embedded' && instances === many),
  )
  const brokered = cells.filter(({ bus }) => bus === 'rabbitmq')
  await using crew = await openCrew({ spares: LANES + 1 })
  await using provider = await openProvider()
  await using stack = new AsyncDisposableStack()
  using interruption = heedInterruption()
  const results: CellResult[] = []
  const startedMs = performance.now()
  const runOn = async (ground: Ground, queue: Cell[]): Promise<void> => {
    let scene: Scene | undefined
    for (let cell = queue.shift(); cell !== undefined && !interruption.isOn; cell = queue.shift()) {
      scene ??= await Scene.set(ground, cell.bus)
      let result = await runCell(cell, scene, nthOf(cell))
      const isSpoilt = result.complaints.length > 0
      if (isSpoilt || scene.isSpent || queue.length === 0 || interruption.isOn) {
        const complaints = await scene.strike({ isSpoilt })
        result = { ...result, complaints: [...result.complaints, ...complaints] }
        scene = undefined
      }
      results.push(result)
      progress(
        lineOf(result, { done: results.length, of: cells.length, spentMs: performance.now() - startedMs }),
      )
    }
  }
  const lanes = Array.from({ length: LANES }, async (_, number) => {
    const lane = stack.use(await openLane())
    const ground = { lane, crew, provider }
    if (number === 0 && brokered.length > 0) {
      const node = await startRabbitNode()
      stack.defer(() => node.close())
      await runOn({ ...ground, broker: brokerOn(node) }, brokered)
    }
    await runOn(ground, ordinary)
  })
  // All of them, or what the others hold would be taken from under their feet.
  const ends = await Promise.allSettled(lanes)
  const failed = ends.find((one) => one.status === 'rejected')
  if (failed !== undefined) throw failed.reason
  if (interruption.isOn) throw new Error(`interrupted after ${results.length} of ${cells.length} cells`)
  return results
}

/** The servers run apart from us: whoever interrupts the drill shall not leave them behind, so what is in hand comes to an end. */
export function heedInterruption(): Disposable & { readonly isOn: boolean } {
  let isOn = false
  const note = (): void => {
    isOn = true
  }
  process.once('SIGINT', note).once('SIGTERM', note)
  return {
    get isOn() {
      return isOn
    },
    [Symbol.dispose]: () => process.off('SIGINT', note).off('SIGTERM', note),
  }
}

/**
 * RabbitMQ 3.10 does not find a quorum queue again that was declared in the second before a kill -9: publishers then wait
 * for its confirms for ever. A queue of a service is older than that; so are those of the cells.
 */
const QUEUES_SETTLE_MS = 2_000

/** A virtual host serves until a cell leaves it unclean: declaring its queues anew takes longer than a cell. */
function brokerOn(node: RabbitNode): Broker {
  let made = 0
  let current: string | undefined
  return {
    async url() {
      if (current !== undefined) return current
      made += 1
      const [url = ''] = await node.virtualHosts([`cells-${made}`])
      const bus = openBus({ url: '', bus: { kind: 'rabbitmq', url }, timing, log: silentLog() })
      await bus.declare()
      await bus.close()
      await sleep(QUEUES_SETTLE_MS)
      current = url
      return url
    },
    kill: () => node.kill(),
    start: () => node.start(),
    spoil() {
      current = undefined
    },
  }
}

function lineOf(
  { cell, fired, complaints, takeOverMs, durationMs }: CellResult,
  { done, of, spentMs }: { done: number; of: number; spentMs: number },
): string {
  const leftMin = Math.ceil(((spentMs / done) * (of - done)) / 60_000)
  const takeOver = takeOverMs === undefined ? '' : `, taken over after ${Math.round(takeOverMs)} ms`
  const head = `${done} of ${of} (${leftMin} min left): ${nameOf(cell)}: ${Math.round(durationMs)} ms${takeOver}`
  const lines = complaints.map(({ kind, text }) => `  ${kind}: ${text}`)
  return [fired >= cell.times ? head : `${head}, FAULT DID NOT HAPPEN`, ...lines].join('\n')
}
