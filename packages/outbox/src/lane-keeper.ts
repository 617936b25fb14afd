import type { Executor } from '@cloudphone/db/executor'
import { systemClock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import type { QueryExecutorProvider } from 'kysely'
import { giveBackLanes, type HeldLane, holdLanes } from './lanes.ts'

/** Lanes as a turn of the relay may use them. */
export interface TrustedLanes {
  readonly owner: string
  readonly lanes: readonly HeldLane[]
  /** False from the moment at which another relay may have taken them. */
  trusted(): boolean
}

/** Keeps a relay alive and its lanes held. */
export interface LaneKeeper {
  /** Resolves after the first lanes were asked for. */
  start(): Promise<void>
  /** The lanes to work on now, after giving back those above the fair share; empty while none is held for sure. */
  current(): Promise<TrustedLanes>
  /** Gives all lanes back. */
  stop(): Promise<void>
}

export interface LaneKeeperOptions {
  readonly db: QueryExecutorProvider
  readonly executor: Executor
  readonly log: Logger
  readonly ttlMs: number
  /** Called when lanes were won: there may be rows in them. */
  readonly onTaken: () => void
}

interface Hold extends TrustedLanes {
  readonly share: number
  readonly trustedUntilMs: number
}

/** A holder stops this much of the ttl before its lanes can be taken by others. */
const MARGIN = 0.1

export function openLaneKeeper({ db, executor, log, ttlMs, onTaken }: LaneKeeperOptions): LaneKeeper {
  // Real time on both sides: see lanes.ts.
  const clock = systemClock
  const stopped = new AbortController()
  let hold: Hold | undefined
  let beating: Promise<void> | undefined
  // Heartbeats and rebalancing take turns, or an older answer could overwrite a newer one.
  let last: Promise<unknown> = Promise.resolve()

  const ask = async (surplus: 'keep' | 'give back'): Promise<void> => {
    const identity = executor.current
    if (identity === null || stopped.signal.aborted) {
      hold = undefined
      return
    }
    const before = hold?.owner === identity.id ? hold.lanes.length : 0
    // Before the statement is sent: a slow answer must not prolong the trust.
    const trustedUntilMs = clock.monotonicMs() + ttlMs * (1 - MARGIN)
    const { lanes, share } = await holdLanes(db, { owner: identity.id, ttlMs, surplus })
    const trusted = (): boolean => !identity.lost.aborted && clock.monotonicMs() < (hold?.trustedUntilMs ?? 0)
    hold = { owner: identity.id, lanes, share, trustedUntilMs, trusted }
    if (lanes.length > before) onTaken()
    if (lanes.length !== before) log.debug({ event: 'outbox.lanes_held', lanes: lanes.length, share })
  }

  const inTurn = (surplus: 'keep' | 'give back'): Promise<void> => {
    const turn = last.then(() => ask(surplus))
    // Its failure is its caller's to hear.
    last = turn.catch(() => undefined)
    return turn
  }

  const beat = async (): Promise<void> => {
    while (!stopped.signal.aborted) {
      await clock.sleep(ttlMs / 3, stopped.signal).catch(() => undefined)
      await inTurn('keep').catch((error: unknown) => {
        log.warn({ event: 'outbox.heartbeat_failed', err: error })
      })
    }
  }

  return {
    async start() {
      await executor.held()
      await inTurn('keep')
      beating = beat()
    },
    async current() {
      if (hold !== undefined && hold.lanes.length > hold.share) await inTurn('give back')
      if (hold?.trusted() === true) return hold
      return { owner: '', lanes: [], trusted: () => false }
    },
    async stop() {
      stopped.abort(new Error('the relay stops'))
      await beating
      await last
      if (hold === undefined) return
      await giveBackLanes(db, hold.owner).catch((error: unknown) => {
        // They expire by themselves.
        log.warn({ event: 'outbox.give_back_failed', err: error })
      })
      hold = undefined
    },
  }
}
