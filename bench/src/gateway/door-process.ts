import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { DoorSettings } from './door.ts'
import type { DoorName } from './door-list.ts'

/** A door in a process of its own. */
export interface DoorProcess extends AsyncDisposable {
  readonly pid: number
  readonly url: string
}

/** Starts a door; with `profileDir`, V8 writes there what its process did. */
export async function startDoor(
  name: DoorName,
  settings: DoorSettings,
  profileDir: string | undefined,
): Promise<DoorProcess> {
  const child = fork(
    fileURLToPath(new URL('./door-main.ts', import.meta.url)),
    [name, JSON.stringify(settings)],
    {
      execArgv: [
        '--no-deprecation',
        ...(profileDir === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profileDir}`]),
      ],
      env: { ...process.env, NODE_ENV: 'production' },
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    },
  )
  const { pid } = child
  if (pid === undefined) throw new Error(`${name}: its process did not start`)
  const ended = once(child, 'exit').then(() => Promise.reject(new Error(`${name}: its process ended`)))
  ended.catch(() => undefined) // heard by the race
  const [url] = await Promise.race([once(child, 'message'), ended])
  return {
    pid,
    url: String(url),
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return
      const end = once(child, 'exit')
      child.disconnect()
      await end
    },
  }
}
