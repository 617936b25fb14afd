import type { Executor } from '@cloudphone/db/executor'
import { systemClock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import type { QueryExecutorProvider } from 'kysely'
import { beat, buryKillers, freeAbandoned, leave } from './consumer-heart.ts'
import { purgeDeadLetters } from './dead-letters.ts'

/** Keeps this process known as a live consumer, and frees what dead ones had in hand. */
export interface Heart {
  /** The executor to claim under; null while it is not known to be alive to others. */
  readonly executor: string | null
  /** Resolves after the first beat; once however often it is called. */
  start(): Promise<void>
  stop(): Promise<void>
}

export interface HeartOptions {
  readonly db: QueryExecutorProvider
  readonly executor: Executor
  readonly log: Logger
  readonly ttlMs: number
  /** Queues that have something to deliver again. */
  readonly onFreed: (queues: readonly string[]) => void
  /** Every `pollMs` of real time, and when a new executor may claim: look at all queues, whatever was notified. */
  readonly onPoll: () => Promise<void>
  readonly pollMs: number
}

/** Finds the deliveries of a killed process: half a second at most after it died. */
const SWEEP_EVERY_MS = 500
const WHOLE_LOOK_EVERY_MS = 30_000
const PURGE_EVERY_MS = 3_600_000

export function openHeart({ db, executor, log, ttlMs, onFreed, onPoll, pollMs }: HeartOptions): Heart {
  // Real time on both sides: see consumer-heart.ts.
  const clock = systemClock
  const stopped = new AbortController()
  let beating: { id: string; lost: AbortSignal; untilMs: number } | undefined
  let starting: Promise<void> | undefined
  let serving: Promise<void> | undefined
  let purgeAtMs = 0
  let pollAtMs = 0
  let wholeLookAtMs = 0

  const alive = (): string | null => {
    if (beating === undefined || beating.lost.aborted || clock.monotonicMs() >= beating.untilMs) return null
    return beating.id
  }

  const turn = async (): Promise<void> => {
    const startedAtMs = clock.monotonicMs()
    const identity = executor.current
    if (
      identity !== null &&
      (alive() !== identity.id || (beating?.untilMs ?? 0) - startedAtMs < (ttlMs * 2) / 3)
    ) {
      const isNew = alive() !== identity.id
      await beat(db, { executor: identity.id, ttlMs })
      beating = { id: identity.id, lost: identity.lost, untilMs: startedAtMs + ttlMs }
      if (isNew) await onPoll()
    }
    const looksAtAll = startedAtMs >= wholeLookAtMs
    const freed = await freeAbandoned(db, looksAtAll ? 'all' : 'dead')
    if (looksAtAll) wholeLookAtMs = startedAtMs + WHOLE_LOOK_EVERY_MS
    if (freed.length === 0) return
    log.warn({ event: 'bus.deliveries_freed', queues: freed })
    const buried = await buryKillers(db)
    if (buried > 0) log.error({ event: 'bus.killers_buried', deliveries: buried })
    onFreed(freed)
  }

  const poll = async (): Promise<void> => {
    if (clock.monotonicMs() < pollAtMs) return
    pollAtMs = clock.monotonicMs() + pollMs
    await onPoll()
  }

  const housekeeping = async (): Promise<void> => {
    if (clock.monotonicMs() < purgeAtMs) return
    purgeAtMs = clock.monotonicMs() + PURGE_EVERY_MS
    await purgeDeadLetters(db)
  }

  const serve = async (): Promise<void> => {
    while (!stopped.signal.aborted) {
      await clock.sleep(Math.min(SWEEP_EVERY_MS, pollMs, ttlMs / 3), stopped.signal).catch(() => undefined)
      if (stopped.signal.aborted) return
      try {
        await poll()
        await turn()
        await housekeeping()
      } catch (error) {
        log.warn({ event: 'bus.heartbeat_failed', err: error })
      }
    }
  }

  const start = async (): Promise<void> => {
    await executor.held()
    await turn()
    serving = serve()
  }
  return {
    get executor() {
      return alive()
    },
    start() {
      starting ??= start().catch((error: unknown) => {
        starting = undefined
        throw error
      })
      return starting
    },
    async stop() {
      stopped.abort(new Error('the bus closes'))
      await serving
      if (beating === undefined) return
      await leave(db, beating.id).catch((error: unknown) => {
        // Our lock goes with the connection, so others find out by themselves.
        log.warn({ event: 'bus.leave_failed', err: error })
      })
    },
  }
}
