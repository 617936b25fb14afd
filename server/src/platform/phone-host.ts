import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, open } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Clock, systemClock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import { openPhoneHost, type PhoneHostClient } from '@cloudphone/phone/host/phone-host-client'

/** Keeps one phone host running beside the control plane. */
export interface PhoneHostSupervisor {
  readonly socketPath: string
  /** Ends it with its phones. */
  stop(): Promise<void>
  /** Stops watching and leaves it and its phones running. */
  leave(): Promise<void>
  /** For a start that failed: ends it when it was started here, leaves it when it was found. */
  takeBack(): Promise<void>
}

const watchEveryMs = 500
const readyWithinMs = 10_000

/**
 * Starts the phone host as a process of its own, or adopts the one that an earlier control plane left running, and
 * starts it again when it dies. It outlives this process unless `stop` is called, as the Docker Engine would.
 * @throws Error when it is not ready within 10 s, with the end of its log's path.
 */
export async function supervisePhoneHost(options: {
  directory: string
  socketPath: string
  log: Logger
  clock?: Clock
}): Promise<PhoneHostSupervisor> {
  const { directory, socketPath, log, clock = systemClock } = options
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const client = openPhoneHost({ socketPath })
  const logPath = join(directory, 'phone-host.log')
  const ended = new AbortController()

  const ensure = async (): Promise<'found' | 'launched'> => {
    if (await answers(client)) return 'found'
    const child = await launch({ directory, socketPath, logPath })
    log.info({ event: 'phone_host.launched', pid: child.pid })
    await becomesReady({ client, child, clock, logPath })
    return 'launched'
  }

  const watch = async () => {
    while (!ended.signal.aborted) {
      try {
        await clock.sleep(watchEveryMs, ended.signal)
        await ensure()
      } catch (error) {
        if (!ended.signal.aborted) log.error({ event: 'phone_host.unavailable', err: error })
      }
    }
  }

  const how = await ensure()
  const watching = watch()
  let closed: Promise<void> | undefined
  const close = async (end: () => Promise<void>) => {
    ended.abort()
    await watching
    await end()
    await client.close()
  }
  const leave = () => {
    closed ??= close(async () => undefined)
    return closed
  }
  const stop = () => {
    closed ??= close(() => client.shutdown())
    return closed
  }
  return { socketPath, leave, stop, takeBack: how === 'launched' ? stop : leave }
}

async function answers(client: PhoneHostClient): Promise<boolean> {
  try {
    await client.health()
    return true
  } catch {
    // Not there, or not yet: that is the question asked.
    return false
  }
}

async function launch(options: {
  directory: string
  socketPath: string
  logPath: string
}): Promise<ChildProcess> {
  const output = await open(options.logPath, 'a', 0o600)
  try {
    const main = fileURLToPath(import.meta.resolve('@cloudphone/phone/main'))
    const child = spawn(
      process.execPath,
      [main, '--dir', options.directory, '--socket', options.socketPath],
      {
        detached: true,
        stdio: ['ignore', output.fd, output.fd],
      },
    )
    child.unref()
    return child
  } finally {
    await output.close()
  }
}

async function becomesReady(options: {
  client: PhoneHostClient
  child: ChildProcess
  clock: Clock
  logPath: string
}): Promise<void> {
  const untilMs = options.clock.monotonicMs() + readyWithinMs
  while (!(await answers(options.client))) {
    const { exitCode } = options.child
    if (exitCode !== null)
      throw new Error(`The phone host ended with code ${exitCode}; see ${options.logPath}`)
    if (options.clock.monotonicMs() > untilMs)
      throw new Error(`The phone host did not become ready; see ${options.logPath}`)
    await options.clock.sleep(20)
  }
}
