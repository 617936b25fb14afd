import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

/** A phone host as a process of its own, as the platform runs it. */
export interface PhoneHostProcess extends AsyncDisposable {
  readonly socketPath: string
  /** kill -9, as a crash of the machine's would. Resolves when it is gone. */
  kill(): Promise<void>
  /** Starts it again over the same directory. */
  restart(): Promise<void>
}

/** Starts a phone host over `folder` and resolves when it listens. */
export async function startPhoneHost(folder: string): Promise<PhoneHostProcess> {
  const socketPath = join(folder, 'host.sock')
  let child = await spawnHost(folder, socketPath)
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const exit = once(child, 'exit')
    child.kill(signal)
    await exit
  }
  return {
    socketPath,
    kill: () => end('SIGKILL'),
    restart: async () => {
      await end('SIGKILL')
      child = await spawnHost(folder, socketPath)
    },
    [Symbol.asyncDispose]: () => end('SIGTERM'),
  }
}

async function spawnHost(folder: string, socketPath: string): Promise<ChildProcess> {
  const main = fileURLToPath(import.meta.resolve('@cloudphone/phone/main'))
  const child = spawn(process.execPath, [main, '--dir', join(folder, 'phones'), '--socket', socketPath], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const errors: string[] = []
  child.stderr?.on('data', (text: Buffer) => errors.push(String(text)))
  const exited = once(child, 'exit').then(() => {
    throw new Error(`the phone host ended at once: ${errors.join('')}`)
  })
  if (child.stdout === null) throw new Error('the phone host has no stdout')
  await Promise.race([once(createInterface(child.stdout), 'line'), exited])
  exited.catch(() => undefined)
  return child
}
