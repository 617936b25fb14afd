/* A process to be hurt: loads the kernel, waits for its orders, opens a world and works in it until it is closed, or
 * worse. It may open several worlds, one after the other. */
import { flushCompileCache } from 'node:module'
import { type CrashAct, type CrashPoints, crashPoints } from '@cloudphone/observe/crash-point'
import { openLog, silentLog } from '@cloudphone/observe/log'
import type { FromWorker, Order, ToWorker } from './orders.ts'
import { openWorld, type World } from './world.ts'

const log = process.env.CHAOS_LOG === undefined ? silentLog() : openLog({ level: 'debug', format: 'json' })
const questions = new Map<number, (act: CrashAct) => void>()
let asked = 0
let world: World | undefined
let armed: CrashPoints = crashPoints(undefined)

function say(message: FromWorker): void {
  process.send?.(message)
}

function ask(): Promise<CrashAct> {
  return new Promise((resolve) => {
    asked += 1
    questions.set(asked, resolve)
    say({ kind: 'reached', question: asked, executorId: world?.executorId ?? null })
  })
}

async function carryOut(order: Order): Promise<void> {
  if (order.verb === 'arm') {
    armed = crashPoints(order.point === undefined ? undefined : `${order.point}=signal`, ask)
    return
  }
  if (order.verb === 'open') {
    const crash: CrashPoints = { reach: (name) => armed.reach(name) }
    world = await openWorld({ ...order.world, log, crash })
    return
  }
  if (world === undefined) throw new Error(`${order.verb} before open`)
  if (order.verb === 'begin') return await world.begin(order.wishes)
  if (order.verb === 'callback') return await world.takePayment(order.callback)
  const closing = world
  world = undefined
  await closing.close()
}

process.on('message', (message: ToWorker) => {
  if (message.kind === 'act') {
    questions.get(message.question)?.(message.act)
    questions.delete(message.question)
    return
  }
  const { id, order } = message
  carryOut(order).then(
    () => say({ kind: 'done', id }),
    (error: unknown) =>
      say({
        kind: 'done',
        id,
        error: error instanceof Error ? (error.stack ?? error.message) : String(error),
      }),
  )
})
// As a supervisor asks: what is in hand is finished. A drain that fails ends as a crash does, for all to see.
process.once('SIGTERM', () => {
  void (world?.close() ?? Promise.resolve()).then(
    () => process.exit(0),
    () => process.kill(process.pid, 'SIGKILL'),
  )
})
// A drill that is gone must not leave us behind.
process.on('disconnect', () => process.exit(0))
// Now, since most of us will not live to do it at our end.
flushCompileCache()
say({ kind: 'loaded' })
