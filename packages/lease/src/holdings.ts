import type { Executor, ExecutorIdentity } from '@cloudphone/db/executor'
import { systemClock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import type { QueryExecutorProvider } from 'kysely'
import type { HeldLease } from './lease.ts'
import { giveBackLeases, type LeaseClaim, type LeaseGrant, renewLeases, takeLeases } from './lease-rows.ts'

/** A lease of this process and what it needs to be kept. */
export interface Holding extends HeldLease {
  readonly ttlMs: number
}

/** The leases that this process holds: one statement renews all of them, one asks for all that are wanted. */
export interface Holdings {
  tryTake(claim: LeaseClaim): Promise<Holding | undefined>
  /** Resolves with the lease as soon as it is ours; rejects when `signal` fires first. */
  take(claim: LeaseClaim, signal: AbortSignal): Promise<Holding>
  /** Resolves when this process has been told at least once whether it gets the lease it waits for. */
  asked(name: string): Promise<void>
  giveBack(holding: HeldLease): Promise<void>
  close(): Promise<void>
}

interface Kept extends Holding {
  readonly holder: string
  readonly lose: AbortController
  /** Monotonic; past it the lease may be another's. */
  trustedUntilMs: number
  timer: AbortController
}

interface Wanted extends LeaseClaim {
  readonly granted: (holding: Holding) => void
  readonly answered: PromiseWithResolvers<void>
}

/** A holder stops this much of the ttl before the lease can be taken by others. */
const MARGIN = 0.1
const DIVISOR = 3

interface HoldingsOptions {
  readonly db: QueryExecutorProvider
  readonly executor: Executor
  readonly log: Logger
  readonly ttlMs: number
}

export function openHoldings({ db, executor, log, ttlMs }: HoldingsOptions): Holdings {
  // Real time on both sides: see lease-rows.ts.
  const clock = systemClock
  const kept = new Map<string, Kept>()
  const wanted = new Map<string, Wanted>()
  const watched = new WeakSet<ExecutorIdentity>()
  const closed = new AbortController()
  const closing = new Promise<undefined>((resolve) => {
    closed.signal.addEventListener('abort', () => resolve(undefined), { once: true })
  })
  let shortestTtlMs = ttlMs
  let pacing = new AbortController()

  const lose = (holding: Kept, reason: string): void => {
    if (kept.get(holding.name) === holding) kept.delete(holding.name)
    holding.timer.abort()
    if (holding.lose.signal.aborted) return
    holding.lose.abort(new Error(`Lease ${holding.name}, epoch ${holding.epoch}: ${reason}`))
    log.warn({ event: 'lease.lost', lease: holding.name, epoch: holding.epoch, reason })
  }

  /** Aborts the holder at the trust deadline, even when the statement that renews hangs. */
  const watch = (holding: Kept): void => {
    holding.timer.abort()
    const timer = new AbortController()
    holding.timer = timer
    const remainingMs = Math.max(0, holding.trustedUntilMs - clock.monotonicMs())
    clock.sleep(remainingMs, timer.signal).then(
      () => lose(holding, 'not renewed in time'),
      // Aborted: renewed, given back or lost already.
      () => undefined,
    )
  }

  const keep = (claim: LeaseClaim, grant: LeaseGrant, holder: string, askedAtMs: number): Kept => {
    const controller = new AbortController()
    const holding: Kept = {
      ...claim,
      epoch: grant.epoch,
      holder,
      signal: controller.signal,
      lose: controller,
      trustedUntilMs: askedAtMs + claim.ttlMs * (1 - MARGIN),
      timer: new AbortController(),
    }
    kept.set(claim.name, holding)
    shortestTtlMs = Math.min(shortestTtlMs, claim.ttlMs)
    watch(holding)
    log.debug({ event: 'lease.taken', lease: claim.name, epoch: grant.epoch })
    return holding
  }

  /** Its lock went with the connection, so others may take its leases from now on. */
  const watchIdentity = (identity: ExecutorIdentity): void => {
    if (watched.has(identity)) return
    watched.add(identity)
    const loseAll = (): void => {
      for (const holding of [...kept.values()]) {
        if (holding.holder === identity.id) lose(holding, 'executor lost')
      }
    }
    identity.lost.addEventListener('abort', loseAll, { once: true })
  }

  const ask = async (claims: readonly LeaseClaim[]): Promise<ReadonlyMap<string, Kept>> => {
    // An unreachable database must not keep us from closing.
    const identity = executor.current ?? (await Promise.race([executor.held(), closing]))
    if (identity === undefined) return new Map()
    watchIdentity(identity)
    // Before the statement is sent: a slow answer must not prolong the trust.
    const askedAtMs = clock.monotonicMs()
    const grants = await takeLeases(db, identity.id, claims)
    const taken = new Map<string, Kept>()
    for (const grant of grants) {
      const claim = claims.find(({ name }) => name === grant.name)
      if (claim !== undefined) taken.set(grant.name, keep(claim, grant, identity.id, askedAtMs))
    }
    if (identity.lost.aborted) {
      for (const holding of taken.values()) lose(holding, 'executor lost')
      return new Map()
    }
    return taken
  }

  const renew = async (): Promise<void> => {
    const byHolder = Map.groupBy(kept.values(), ({ holder }) => holder)
    for (const [holder, holdings] of byHolder) {
      if (executor.current?.id !== holder) {
        for (const holding of holdings) lose(holding, 'executor replaced')
        continue
      }
      const askedAtMs = clock.monotonicMs()
      const renewed = await renewLeases(db, holder, holdings)
      for (const holding of holdings) {
        if (kept.get(holding.name) !== holding) continue
        if (!renewed.has(holding.name)) {
          lose(holding, 'taken by another')
          continue
        }
        holding.trustedUntilMs = askedAtMs + holding.ttlMs * (1 - MARGIN)
        watch(holding)
      }
    }
  }

  const askForWanted = async (): Promise<void> => {
    const asking = [...wanted.values()]
    if (asking.length === 0) return
    const taken = await ask(asking)
    for (const one of asking) {
      const holding = taken.get(one.name)
      one.answered.resolve()
      if (holding === undefined) continue
      if (wanted.get(one.name) === one) {
        wanted.delete(one.name)
        one.granted(holding)
      } else await giveBack(holding)
    }
  }

  const serve = async (): Promise<void> => {
    while (!closed.signal.aborted) {
      const pace = new AbortController()
      pacing = pace
      try {
        if (kept.size > 0) await renew()
        await askForWanted()
      } catch (error) {
        if (!closed.signal.aborted) log.warn({ event: 'lease.turn_failed', err: error })
      }
      // Early when a new lease is asked for.
      const soon = AbortSignal.any([pace.signal, closed.signal])
      await clock.sleep(shortestTtlMs / DIVISOR, soon).catch(() => undefined)
    }
  }

  const giveBack = async (holding: HeldLease): Promise<void> => {
    const current = kept.get(holding.name)
    if (current?.epoch !== holding.epoch) return
    kept.delete(holding.name)
    current.timer.abort()
    current.lose.abort(new Error(`Lease ${holding.name}, epoch ${holding.epoch}: given back`))
    await giveBackLeases(db, current.holder, [current]).catch((error: unknown) => {
      // It expires by itself.
      log.warn({ event: 'lease.give_back_failed', lease: holding.name, err: error })
    })
  }

  const serving = serve()
  return {
    async tryTake(claim) {
      if (kept.has(claim.name)) return undefined
      const taken = await ask([claim])
      return taken.get(claim.name)
    },
    async take(claim, signal) {
      signal.throwIfAborted()
      if (wanted.has(claim.name)) throw new Error(`Lease ${claim.name} is asked for twice in one process`)
      const answered = Promise.withResolvers<void>()
      const result = Promise.withResolvers<Holding>()
      const one: Wanted = { ...claim, granted: result.resolve, answered }
      wanted.set(claim.name, one)
      const give = (): void => {
        if (wanted.get(claim.name) === one) wanted.delete(claim.name)
        answered.resolve()
        result.reject(signal.reason)
      }
      signal.addEventListener('abort', give, { once: true })
      pacing.abort()
      try {
        return await result.promise
      } finally {
        signal.removeEventListener('abort', give)
      }
    },
    async asked(name) {
      await wanted.get(name)?.answered.promise
    },
    giveBack,
    async close() {
      closed.abort(new Error('leases are closed'))
      await serving
      await Promise.all([...kept.values()].map(giveBack))
    },
  }
}
