import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

export interface Worker extends AsyncDisposable {
  readonly process: ChildProcess
  /** Resolves when the worker has logged this event (since it began). */
  logged(event: string): Promise<void>
  /** Resolves with the signal that ended it. */
  died(): Promise<NodeJS.Signals | null>
}

/** Starts a worker process; it runs the toy sagas of `types` and dies where `crash` says. */
export function spawnWorker({
  url,
  types,
  leaseTtlMs,
  crash = '',
}: {
  url: string
  types: readonly string[]
  leaseTtlMs: number
  crash?: string
}): Worker {
  const script = new URL('./worker.ts', import.meta.url).pathname
  const child = spawn(process.execPath, [script, url, types.join(','), String(leaseTtlMs)], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, CLOUDPHONE_CRASH_POINTS: crash },
  })
  const seen = new Set<string>()
  const watchers = new Map<string, () => void>()
  createInterface({ input: child.stdout }).on('line', (line) => {
    const { event }: { event?: string } = JSON.parse(line)
    if (event === undefined) return
    seen.add(event)
    watchers.get(event)?.()
  })
  const exited = once(child, 'exit')
  return {
    process: child,
    logged: (event) =>
      new Promise((resolve, reject) => {
        if (seen.has(event)) return resolve()
        watchers.set(event, resolve)
        child.once('exit', () => reject(new Error(`The worker ended before it logged ${event}`)))
      }),
    async died() {
      await exited
      return child.signalCode
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
      await exited
    },
  }
}
