import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

/** One of the processes that run sagas. */
export interface CrewMember extends AsyncDisposable {
  readonly name: string
  /** kill -9; answers the wall clock just before, in ms. */
  kill(): Promise<number>
}

/** Starts one and waits until it works. */
export async function startCrewMember(url: string, name: string): Promise<CrewMember> {
  const child: ChildProcess = fork(fileURLToPath(new URL('./worker.ts', import.meta.url)), [url, name], {
    env: { ...process.env, NODE_ENV: 'production' },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  const ended = once(child, 'exit')
  const died = ended.then(() => {
    throw new Error(`the saga worker ${name} ended before it was ready`)
  })
  died.catch(() => undefined) // heard where it matters: below
  await Promise.race([once(child, 'message'), died])
  return {
    name,
    async kill() {
      const atMs = Date.now()
      child.kill('SIGKILL')
      await ended
      return atMs
    },
    async [Symbol.asyncDispose]() {
      if (child.connected) child.disconnect()
      await ended
    },
  }
}
