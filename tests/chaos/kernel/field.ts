import { type RabbitNode, startRabbitNode } from '../../src/rabbitmq.ts'
import { type Broker, type CellResult, type Ground, runCell } from './cell.ts'
import { type Cell, nameOf } from './cells.ts'
import { openCrew } from './crew.ts'
import { openLane } from './lane.ts'
import { openProvider } from './provider.ts'

export interface FieldOptions {
  readonly cells: readonly Cell[]
  /** The visit of its point at which a cell's fault happens. */
  readonly nthOf: (cell: Cell) => number
  readonly progress: (line: string) => void
}

/** Two cells run side by side: most of a cell is waiting for a lease to run out. */
const LANES = 2

/**
 * Carries cells out, two at a time, each lane on a PostgreSQL of its own. There is one RabbitMQ: the cells that need it go
 * through one lane, one after the other.
 */
export async function runCells({ cells, nthOf, progress }: FieldOptions): Promise<CellResult[]> {
  const ordinary = cells.filter(({ bus }) => bus === 'embedded')
  const brokered = cells.filter(({ bus }) => bus === 'rabbitmq')
  await using crew = openCrew({ spares: LANES * 2 })
  await using provider = await openProvider()
  await using stack = new AsyncDisposableStack()
  const results: CellResult[] = []
  const startedMs = performance.now()
  const runOn = async (ground: Ground, queue: Cell[]): Promise<void> => {
    for (let cell = queue.shift(); cell !== undefined; cell = queue.shift()) {
      const result = await runCell(cell, ground, nthOf(cell))
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
  return results
}

/** A virtual host serves until a cell leaves it unclean: declaring its queues anew takes longer than a cell. */
function brokerOn(node: RabbitNode): Broker {
  let made = 0
  let current: string | undefined
  return {
    async url() {
      if (current === undefined) {
        made += 1
        ;[current] = await node.virtualHosts([`cells-${made}`])
      }
      if (current === undefined) throw new Error('RabbitMQ gave no virtual host')
      return current
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
