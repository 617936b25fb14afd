import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'

/** A server of a test: killed and started again as its tests like. */
export interface ServerProcess {
  /** Its process, while it runs. @throws Error when it does not. */
  pid(): number
  /** kill -9, as a crash would. */
  kill(): Promise<void>
  /** Starts it (again), and resolves when it answers. */
  start(): Promise<void>
}

const LOOK_AGAIN_MS = 20
const READY_WITHIN_MS = 60_000

/** Makes a server that is started by `start`. `isReady` is asked until it says so; that it throws means not yet. */
export function serverProcess(options: {
  name: string
  program: string
  args: readonly string[]
  isReady: () => Promise<boolean>
}): ServerProcess {
  const { name, program, args, isReady } = options
  let child: ChildProcess | undefined
  const runs = (): boolean => child !== undefined && child.exitCode === null && child.signalCode === null
  const becomesReady = async (): Promise<void> => {
    const deadlineMs = performance.now() + READY_WITHIN_MS
    while (!(await isReady().catch(() => false))) {
      if (!runs()) throw new Error(`${name} has ended: ${program} ${args.join(' ')}`)
      if (performance.now() > deadlineMs)
        throw new Error(`${name} does not answer after ${READY_WITHIN_MS} ms`)
      // Real time: a server that starts cannot be awaited, only asked again.
      await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS))
    }
  }
  return {
    pid: () => {
      if (!runs() || child?.pid === undefined) throw new Error(`${name} does not run`)
      return child.pid
    },
    kill: async () => {
      if (child === undefined || !runs()) return
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
    },
    start: async () => {
      child = spawn(program, args, { stdio: 'ignore' })
      await once(child, 'spawn')
      await becomesReady()
    },
  }
}

/** Ports of this machine that nobody listens on now. */
export async function freePorts(count: number): Promise<readonly number[]> {
  const doors = Array.from({ length: count }, () => createServer())
  const ports = await Promise.all(
    doors.map(async (door) => {
      door.listen(0, '127.0.0.1')
      await once(door, 'listening')
      const address = door.address()
      return typeof address === 'object' && address !== null ? address.port : 0
    }),
  )
  await Promise.all(doors.map((door) => new Promise((resolve) => door.close(resolve))))
  return ports
}
