import type { Clock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'
import type { Holding, Holdings } from './holdings.ts'
import type { LeasedLoop, LeasedWork } from './lease.ts'

interface LoopOptions {
  readonly name: string
  readonly everyMs: number
  readonly work: LeasedWork
  readonly holdings: Holdings
  readonly clock: Clock
  readonly log: Logger
  readonly metrics: Metrics
  readonly ttlMs: number
}

/** Starts to ask for the lease and, while it is held, runs `work` on a fixed grid of `everyMs` from the taking on. */
export function startLoop(options: LoopOptions): LeasedLoop {
  const { name, everyMs, work, holdings, clock, log, metrics, ttlMs } = options
  const turns = metrics.counter({
    name: 'lease_loop_turns_total',
    help: 'Turns of leased loops.',
    labels: ['loop'],
  })
  const failures = metrics.counter({
    name: 'lease_loop_failures_total',
    help: 'Turns of leased loops that failed.',
    labels: ['loop'],
  })
  const stopped = new AbortController()
  let nudged: PromiseWithResolvers<void> | undefined
  let interrupt = new AbortController()
  let held = false

  const turn = async (lease: Holding): Promise<void> => {
    const answering = nudged
    nudged = undefined
    turns.inc({ loop: name })
    try {
      await work({ name, epoch: lease.epoch, signal: AbortSignal.any([lease.signal, stopped.signal]) })
    } catch (error) {
      failures.inc({ loop: name })
      log.error({ event: 'lease.loop_failed', loop: name, err: error })
    } finally {
      answering?.resolve()
    }
  }

  const turnsWhileHeld = async (lease: Holding): Promise<void> => {
    let dueAtMs = clock.monotonicMs()
    while (!lease.signal.aborted && !stopped.signal.aborted) {
      const waitMs = nudged === undefined ? dueAtMs - clock.monotonicMs() : 0
      if (waitMs > 0) {
        interrupt = new AbortController()
        const over = AbortSignal.any([interrupt.signal, lease.signal, stopped.signal])
        await clock.sleep(waitMs, over).catch(() => undefined)
        continue
      }
      await turn(lease)
      // A turn that took longer than its period skips what it missed; the grid stays where it is.
      const lateMs = clock.monotonicMs() - dueAtMs
      if (lateMs >= 0) dueAtMs += (Math.floor(lateMs / everyMs) + 1) * everyMs
    }
  }

  const run = async (): Promise<void> => {
    while (!stopped.signal.aborted) {
      const lease = await holdings.take({ name, ttlMs }, stopped.signal).catch((error: unknown) => {
        if (stopped.signal.aborted) return undefined
        throw error
      })
      if (lease === undefined) break
      held = true
      await turnsWhileHeld(lease)
      held = false
      await holdings.giveBack(lease)
    }
    nudged?.resolve()
  }
  const running = run().catch((error: unknown) => {
    log.error({ event: 'lease.loop_ended', loop: name, err: error })
  })

  return {
    async nudge() {
      await Promise.race([holdings.asked(name), running])
      if (!held || stopped.signal.aborted) return
      nudged ??= Promise.withResolvers()
      interrupt.abort()
      await Promise.race([nudged.promise, running])
    },
    async stop() {
      stopped.abort(new Error(`Loop ${name} is stopped`))
      await running
    },
  }
}
