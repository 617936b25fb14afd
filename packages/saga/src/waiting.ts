import type { Clock } from '@cloudphone/observe/clock'
import { type QueryExecutorProvider, sql } from 'kysely'
import { openDeadlines } from './deadlines.ts'
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
  timeoutMs,
  signals,
  read,
  enough,
  carried,
}: WaitUntil): Promise<SagaProgress | undefined> {
  // Before the first look, so that a move right after it is not missed.
  using follower = waiting.follow(sagaId, { enough, timeoutMs, signals })
  let known = carried ? await follower.next() : undefined
  for (;;) {
    known ??= await read()
    if (known === undefined || enough(known)) return known
    if (follower.isOver) return undefined
    known = await follower.next()
  }
}

export interface Follower extends Disposable {
  /** The time is over, or a signal has fired. */
  readonly isOver: boolean
  /**
   * Resolves with a progress that is enough as soon as this process makes it; with undefined, as a word to look, when
   * another process may have moved the saga, at the latest after the poll interval, and when the wait is over.
   */
  next(): Promise<SagaProgress | undefined>
}

export interface FollowOptions {
  readonly enough: Enough
  readonly timeoutMs: number
  readonly signals: readonly AbortSignal[]
}

/** Those who wait for sagas to move, woken by this process at once and by others through `look`. */
export interface Waiting {
  /** This process has moved a saga; where to, if it knows. */
  moved(sagaId: string, progress?: SagaProgress): void
  /** Some process may have moved some saga: ask the database about those that are waited for. */
  look(): void
  follow(sagaId: string, options: FollowOptions): Follower
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
  clock,
  realClock,
  onError,
}: {
  db: QueryExecutorProvider
  clock: Clock
  realClock: Clock
  onError: (error: unknown) => void
}): Waiting {
  const waiters = new Map<string, Set<Waiter>>()
  const versions = new Map<string, number>()
  const closed = new AbortController()
  const timeouts = openDeadlines(clock)
  const polls = openDeadlines(realClock)
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
    follow(sagaId, { enough, timeoutMs, signals }) {
      let latest: SagaProgress | undefined
      let isOver = closed.signal.aborted || signals.some((signal) => signal.aborted)
      let wake = Promise.withResolvers<void>()
      const waiter: Waiter = {
        enough,
        tell(progress) {
          latest = progress
          wake.resolve()
        },
      }
      const end = (): void => {
        isOver = true
        wake.resolve()
      }
      const own = waiters.get(sagaId) ?? new Set()
      waiters.set(sagaId, own.add(waiter))
      for (const signal of [closed.signal, ...signals]) signal.addEventListener('abort', end)
      const takeBack = timeouts.after(timeoutMs, end)
      return {
        get isOver() {
          return isOver
        },
        async next() {
          if (!isOver) {
            const notPolled = polls.after(POLL_MS, wake.resolve)
            await wake.promise
            notPolled()
          }
          wake = Promise.withResolvers()
          const progress = latest
          latest = undefined
          return progress
        },
        [Symbol.dispose]() {
          takeBack()
          for (const signal of [closed.signal, ...signals]) signal.removeEventListener('abort', end)
          own.delete(waiter)
          if (own.size > 0) return
          waiters.delete(sagaId)
          versions.delete(sagaId)
        },
      }
    },
    close() {
      closed.abort(new Error('sagas are stopping'))
      timeouts.close()
      polls.close()
    },
  }
}
