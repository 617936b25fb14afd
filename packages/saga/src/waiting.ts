import type { Clock } from '@cloudphone/observe/clock'
import { type QueryExecutorProvider, sql } from 'kysely'

/** Waits until `enough` holds of what `read` gives, asking again whenever the saga has moved. */
export async function waitUntil<Progress>({
  sagaId,
  waiting,
  clock,
  timeoutMs,
  signals,
  read,
  enough,
}: {
  sagaId: string
  waiting: Waiting
  clock: Clock
  timeoutMs: number
  signals: readonly AbortSignal[]
  read: () => Promise<Progress | undefined>
  enough: (progress: Progress) => boolean
}): Promise<void> {
  const over = new AbortController()
  const stop = AbortSignal.any([over.signal, ...signals])
  const timedOut = clock.sleep(timeoutMs, stop).then(
    () => over.abort(),
    () => undefined, // woken before
  )
  try {
    for (;;) {
      // Before the look, so that a move right after it is not missed.
      const moved = waiting.next(sagaId, stop)
      const progress = await read()
      if (progress === undefined || enough(progress) || stop.aborted) return
      await moved
    }
  } finally {
    over.abort()
    await timedOut
  }
}

/** Those who wait for sagas to move, woken by this process at once and by others through `look`. */
export interface Waiting {
  /** This process has moved a saga. */
  moved(sagaId: string): void
  /** Some process may have moved some saga: ask the database about those that are waited for. */
  look(): void
  /** Resolves when the saga is said to have moved, at the latest after the poll interval or when `signal` fires. */
  next(sagaId: string, signal: AbortSignal): Promise<void>
  close(): void
}

/** The safety net below lost notifications. */
const POLL_MS = 1_000
/** Notifications come up to 200 times a second; a glance at the waiting ones is worth 20. */
const LOOK_INTERVAL_MS = 50

export function openWaiting({
  db,
  realClock,
  onError,
}: {
  db: QueryExecutorProvider
  realClock: Clock
  onError: (error: unknown) => void
}): Waiting {
  const waiters = new Map<string, Set<() => void>>()
  const versions = new Map<string, number>()
  const closed = new AbortController()
  let looking = false
  let again = false

  const wake = (sagaId: string): void => {
    for (const waiter of waiters.get(sagaId) ?? []) waiter()
  }

  const glance = async (): Promise<void> => {
    const ids = [...waiters.keys()]
    if (ids.length === 0) return
    const { rows } = await sql<{ saga_id: string; version: number }>`
      select saga_id, version from saga_state where saga_id = any(${ids}::text[])`.execute(db)
    for (const { saga_id, version } of rows) {
      if (versions.get(saga_id) === version) continue
      versions.set(saga_id, version)
      wake(saga_id)
    }
  }

  const lookOn = async (): Promise<void> => {
    looking = true
    try {
      do {
        again = false
        await glance()
        await realClock.sleep(LOOK_INTERVAL_MS, closed.signal)
      } while (again)
    } catch (error) {
      // The poll of each waiter goes on.
      if (!closed.signal.aborted) onError(error)
    } finally {
      looking = false
    }
  }

  return {
    moved: wake,
    look() {
      if (waiters.size === 0 || closed.signal.aborted) return
      again = true
      if (!looking) void lookOn() // catches its own errors
    },
    async next(sagaId, signal) {
      const woken = Promise.withResolvers<void>()
      const over = new AbortController()
      const own = waiters.get(sagaId) ?? new Set()
      waiters.set(sagaId, own.add(woken.resolve))
      const stop = AbortSignal.any([signal, closed.signal, over.signal])
      realClock.sleep(POLL_MS, stop).then(woken.resolve, woken.resolve)
      try {
        await woken.promise
      } finally {
        over.abort()
        own.delete(woken.resolve)
        if (own.size === 0) {
          waiters.delete(sagaId)
          versions.delete(sagaId)
        }
      }
    },
    close: () => closed.abort(),
  }
}
