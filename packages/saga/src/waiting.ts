import type { Clock } from '@cloudphone/observe/clock'
import { type QueryExecutorProvider, sql } from 'kysely'
import { openBell } from './bell.ts'
import type { SagaRow } from './row.ts'

/** How far a saga has come: little enough to be asked for at each of its moves. */
export interface SagaProgress {
  readonly version: number
  readonly updatedAt: string
  readonly hasEnded: boolean
  /** The whole row, where this process wrote it. */
  readonly row?: SagaRow
}

type Enough = (progress: SagaProgress) => boolean

export function progressOf(row: SagaRow): SagaProgress {
  return {
    version: row.version,
    updatedAt: row.updatedAt.toISOString(),
    hasEnded: row.endedAt !== null,
    row,
  }
}

export interface WaitUntil {
  readonly sagaId: string
  readonly waiting: Waiting
  readonly clock: Clock
  readonly timeoutMs: number
  readonly signals: readonly AbortSignal[]
  readonly read: () => Promise<SagaProgress | undefined>
  readonly enough: Enough
  /** Whether this process has the saga in hand: then its moves are heard, and the first look is spared. */
  readonly carried: boolean
}

/**
 * Waits until `enough` holds of a saga. Gives the progress for which it does; undefined when the time is over, a signal
 * fires or there is no such saga.
 */
export async function waitUntil({
  sagaId,
  waiting,
  clock,
  timeoutMs,
  signals,
  read,
  enough,
  carried,
}: WaitUntil): Promise<SagaProgress | undefined> {
  const over = new AbortController()
  const stop = AbortSignal.any([over.signal, ...signals])
  const timedOut = clock.sleep(timeoutMs, stop).then(
    () => over.abort(),
    () => undefined, // woken before
  )
  // Before the first look, so that a move right after it is not missed.
  using follower = waiting.follow(sagaId, enough)
  try {
    let known: SagaProgress | undefined
    let trusting = carried
    for (;;) {
      if (known === undefined && !trusting) {
        known = await read()
        if (known === undefined) return undefined
      }
      if (known !== undefined && enough(known)) return known
      if (stop.aborted) return undefined
      known = await follower.next(stop)
      trusting = false
    }
  } finally {
    over.abort()
    await timedOut
  }
}

export interface Follower extends Disposable {
  /**
   * Resolves with a progress that is enough as soon as this process makes it; with undefined, as a word to look, when
   * another process may have moved the saga, at the latest after the poll interval, and when `signal` fires.
   */
  next(signal: AbortSignal): Promise<SagaProgress | undefined>
}

/** Those who wait for sagas to move, woken by this process at once and by others through `look`. */
export interface Waiting {
  /** This process has moved a saga; where to, if it knows. */
  moved(sagaId: string, progress?: SagaProgress): void
  /** Some process may have moved some saga: ask the database about those that are waited for. */
  look(): void
  follow(sagaId: string, enough: Enough): Follower
  close(): void
}

/** The safety net below lost notifications. */
const POLL_MS = 1_000
/** Notifications come up to 20 times a second; a glance at the waiting ones is worth no more. */
const LOOK_INTERVAL_MS = 50

interface Waiter {
  readonly enough: Enough
  tell(progress: SagaProgress | undefined): void
}

export function openWaiting({
  db,
  realClock,
  onError,
}: {
  db: QueryExecutorProvider
  realClock: Clock
  onError: (error: unknown) => void
}): Waiting {
  const waiters = new Map<string, Set<Waiter>>()
  const versions = new Map<string, number>()
  const closed = new AbortController()
  let looking = false
  let again = false

  const tell = (sagaId: string, progress: SagaProgress | undefined): void => {
    for (const waiter of waiters.get(sagaId) ?? []) {
      if (progress === undefined || waiter.enough(progress)) waiter.tell(progress)
    }
  }

  const glance = async (): Promise<void> => {
    const ids = [...waiters.keys()]
    if (ids.length === 0) return
    const { rows } = await sql<{ saga_id: string; version: number }>`
      select saga_id, version from saga_state where saga_id = any(${ids}::text[])`.execute(db)
    for (const { saga_id, version } of rows) {
      if (!waiters.has(saga_id) || (versions.get(saga_id) ?? 0) >= version) continue
      versions.set(saga_id, version)
      tell(saga_id, undefined)
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
    moved(sagaId, progress) {
      if (!waiters.has(sagaId)) return
      if (progress !== undefined) versions.set(sagaId, progress.version)
      tell(sagaId, progress)
    },
    look() {
      if (waiters.size === 0 || closed.signal.aborted) return
      again = true
      if (!looking) void lookOn() // catches its own errors
    },
    follow(sagaId, enough) {
      const bell = openBell()
      let latest: SagaProgress | undefined
      const waiter: Waiter = {
        enough,
        tell(progress) {
          latest = progress
          bell.ring()
        },
      }
      const own = waiters.get(sagaId) ?? new Set()
      waiters.set(sagaId, own.add(waiter))
      return {
        async next(signal) {
          const over = new AbortController()
          const stop = AbortSignal.any([signal, closed.signal, over.signal])
          realClock.sleep(POLL_MS, stop).then(bell.ring, () => undefined) // told before
          try {
            await bell.next(stop)
          } finally {
            over.abort()
          }
          bell.clear()
          const progress = latest
          latest = undefined
          return progress
        },
        [Symbol.dispose]() {
          own.delete(waiter)
          if (own.size > 0) return
          waiters.delete(sagaId)
          versions.delete(sagaId)
        },
      }
    },
    close: () => closed.abort(),
  }
}
