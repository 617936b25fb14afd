import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { CrashAct } from '@cloudphone/observe/crash-point'
import type { FromWorker, Order, ToWorker } from './orders.ts'

/** Answers what shall happen to a worker that has reached its crash point. */
export type Watcher = (worker: Worker, executorId: string | null) => Promise<CrashAct>

/** A worker process in somebody's hands. */
export interface Worker {
  readonly pid: number
  readonly hasEnded: boolean
  /** Resolves with the signal that ended it. */
  readonly ended: Promise<NodeJS.Signals | null>
  /** Resolves when it has carried the order out. @throws Error when it could not, or died over it. */
  order(order: Order): Promise<void>
  signal(name: NodeJS.Signals): void
  watch(watcher: Watcher | undefined): void
}

/** Keeps worker processes that have loaded their modules and wait: a start costs more than a cell. */
export interface Crew extends AsyncDisposable {
  take(): Promise<Worker>
  /** Takes a worker back whose world is closed. */
  giveBack(worker: Worker): void
}

const SCRIPT = new URL('./worker.ts', import.meta.url)

export async function openCrew({ spares }: { spares: number }): Promise<Crew> {
  // Halves what a start costs, which is most of what a cell with a SIGKILL costs.
  const cache = await mkdtemp(join(tmpdir(), 'chaos-modules-'))
  const idle: Promise<Hand>[] = []
  const all = new Set<Hand>()
  const hire = (): void => {
    const hand = startHand(cache)
    all.add(hand)
    void hand.ended.then(() => all.delete(hand))
    const ready = hand.loaded.then(() => hand)
    // Whoever takes it hears of it; a spare that dies unasked is nobody's.
    ready.catch(() => undefined)
    idle.push(ready)
  }
  const take = async (): Promise<Worker> => {
    const next = idle.shift()
    while (idle.length < spares) hire()
    const hand = await (next ?? take())
    return hand.hasEnded ? await take() : hand
  }
  while (idle.length < spares) hire()
  return {
    take,
    giveBack(worker) {
      const hand = [...all].find((one) => one === worker)
      worker.watch(undefined)
      if (hand !== undefined && !hand.hasEnded) idle.unshift(Promise.resolve(hand))
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(
        [...all].map(async (hand) => {
          hand.signal('SIGKILL')
          await hand.ended
        }),
      )
      await rm(cache, { recursive: true, force: true })
    },
  }
}

interface Hand extends Worker {
  readonly loaded: Promise<void>
}

function startHand(cache: string): Hand {
  // In a process group of its own: Ctrl-C is for the drill, which ends its cells in good order.
  const child: ChildProcess = fork(SCRIPT, [], {
    execArgv: [],
    detached: true,
    env: { ...process.env, NODE_COMPILE_CACHE: cache },
  })
  const pending = new Map<number, { resolve: () => void; reject: (error: Error) => void }>()
  const loaded = Promise.withResolvers<void>()
  const ended = once(child, 'exit').then(() => {
    const error = new Error(`worker ${child.pid} ended by ${child.signalCode ?? child.exitCode}`)
    for (const { reject } of pending.values()) reject(error)
    loaded.reject(error)
    return child.signalCode
  })
  let watcher: Watcher | undefined
  let orders = 0
  const hand: Hand = {
    pid: child.pid ?? 0,
    get hasEnded() {
      return child.exitCode !== null || child.signalCode !== null
    },
    ended,
    loaded: loaded.promise,
    order: (order) =>
      new Promise((resolve, reject) => {
        orders += 1
        const id = orders
        pending.set(id, { resolve, reject })
        if (hand.hasEnded || !child.connected) return reject(new Error(`worker ${child.pid} has ended`))
        tell(child, { kind: 'order', id, order })
      }),
    signal(name) {
      child.kill(name)
    },
    watch(next) {
      watcher = next
    },
  }
  child.on('message', (message: FromWorker) => {
    if (message.kind === 'loaded') return loaded.resolve()
    if (message.kind === 'done') {
      const waiting = pending.get(message.id)
      pending.delete(message.id)
      if (message.error === undefined) waiting?.resolve()
      else waiting?.reject(new Error(message.error))
      return
    }
    const { question, executorId } = message
    const verdict = watcher === undefined ? Promise.resolve<CrashAct>('go') : watcher(hand, executorId)
    void verdict.then((act) => tell(child, { kind: 'act', question, act }))
  })
  return hand
}

/** A message to a process that dies meanwhile is lost with it. */
function tell(child: ChildProcess, message: ToWorker): void {
  if (child.connected) child.send(message, () => undefined)
}
