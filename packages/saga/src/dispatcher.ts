import { DatabaseUnavailable } from '@cloudphone/db/errors'
import type { Executor, ExecutorIdentity } from '@cloudphone/db/executor'
import { openBell, whenAborted } from './bell.ts'
import { type Known, openCrew } from './crew.ts'
import type { SagaRow } from './row.ts'
import type { Room } from './run.ts'

/** A promise to take sagas that are inserted under this executor's id. */
export interface Offer {
  readonly executorId: string
  /** Monotonic: from when on their leases count. */
  readonly askedMs: number
}

/** Finds due sagas and hands them to the crew. */
export interface Dispatcher {
  /** Free hands for a saga that is about to be inserted; undefined when there are none here. */
  offer(): Offer | undefined
  /** Takes a saga that was inserted, and committed, under an offer. */
  take(row: SagaRow, offer: Offer): void
  /** Whether this process has the saga in hand, and so will say what becomes of it. */
  carries(sagaId: string): boolean
  /** Something may be due: now, or in so many milliseconds of the injected clock. */
  wake(inMs?: number): void
  run(): void
  drain(): Promise<void>
  stop(graceMs: number): Promise<void>
}

export interface DispatcherOptions<Transaction> {
  readonly room: Room<Transaction>
  readonly executor: Executor
  /** `type:version` of each definition. */
  readonly keys: readonly string[]
  readonly knownOf: (row: SagaRow) => Known<Transaction>
  readonly concurrency: number
  readonly sweepMs: number
}

interface Claims {
  readonly claimed: number
  /** There may be more than hands. */
  readonly full: boolean
  /** Everything was looked at, not only what nobody holds. */
  readonly swept: boolean
}

/** A claim costs as much as twenty checkpoints: with many hands busy, one for each that gets free is too dear. */
const GATHER_MS = 3
/** So long after a session was lost somebody may still find what it held, and take this process for dead. */
const FORGIVING_MS = 30_000
const DATABASE_RETRY_MS = 250
/** Effects that do not heed their signal are left behind. */
const ABANDON_WAIT_MS = 1_500
/** A timer of more than 2^31 ms would fire at once. */
const MAX_NAP_MS = 3_600_000

export function openDispatcher<Transaction>(options: DispatcherOptions<Transaction>): Dispatcher {
  const { room, executor, keys, knownOf, concurrency, sweepMs } = options
  const { store, log, clock, realClock, leaseTtlMs } = room
  const bell = openBell()
  const stopped = new AbortController()
  let running = false
  // Beats until the last run has ended, also while nothing is claimed any more.
  const heart = new AbortController()
  const formerIds = new Set<string>()
  const followed = new WeakSet<AbortSignal>()
  let forgivingUntilMs = 0
  let loops: Promise<void>[] = []
  let lastSweepMs = Number.NEGATIVE_INFINITY
  let claiming: Promise<unknown> = Promise.resolve()
  // Set while there may be more due than hands: then, and only then, a free hand is worth a claim.
  let busy = false
  // By the injected clock: when to look although nobody rings.
  let dueAtMs = Number.NEGATIVE_INFINITY
  const crew = openCrew({ room, known: knownOf, onFree: () => busy && freed() })
  let gathering = false
  /** Claims go for several free hands at a time, or else after a breath. */
  const freed = (): void => {
    if (concurrency - crew.size >= concurrency / 4) bell.ring()
    else if (!gathering) void gather() // never rejects
  }
  const gather = async (): Promise<void> => {
    gathering = true
    await realClock.sleep(GATHER_MS, stopped.signal).catch(() => undefined) // stopped: nothing is claimed any more
    gathering = false
    bell.ring()
  }

  const follow = ({ id, lost }: ExecutorIdentity): void => {
    if (followed.has(lost)) return
    followed.add(lost)
    forgivingUntilMs = realClock.monotonicMs() + FORGIVING_MS
    const gone = (): void => {
      formerIds.add(id)
      crew.abandon(id, new Error('the connection behind the leases is lost'))
      bell.ring()
    }
    if (lost.aborted) gone()
    else lost.addEventListener('abort', gone, { once: true })
  }

  const launch = (row: SagaRow, { executorId, askedMs }: Offer): void =>
    crew.launch(row, { executorId, askedMs, lost: formerIds.has(executorId) })

  const claimNow = async (): Promise<Claims> => {
    const free = concurrency - crew.size
    const identity = executor.current
    if (free <= 0 || identity === null || stopped.signal.aborted)
      return { claimed: 0, full: true, swept: false }
    follow(identity)
    const askedMs = realClock.monotonicMs()
    const sweep = askedMs - lastSweepMs >= sweepMs
    const rows = await (sweep ? store.claimAny : store.claimFree)({
      executorId: identity.id,
      formerIds: [...formerIds],
      known: keys,
      limit: free,
      suspects: crew.suspects,
      leaseTtlMs,
    })
    if (sweep) lastSweepMs = askedMs
    for (const row of rows) launch(row, { executorId: identity.id, askedMs })
    return { claimed: rows.length, full: rows.length >= free, swept: sweep }
  }
  /** One at a time, so that whoever finds nothing to claim knows that all claimed rows are with the crew. */
  const claim = (): Promise<Claims> => {
    const result = claiming.then(claimNow)
    claiming = result.catch(() => undefined) // its caller hears of it
    return result
  }

  /** Sleeps until the bell, the next sweep or the next due row; with full hands only until the bell or the sweep. */
  const rest = async ({ full, swept }: Claims): Promise<void> => {
    const nowMs = clock.monotonicMs()
    // Asked for when there was a reason to look; what this process puts off itself it knows, and the sweep finds the rest.
    if (!full && (swept || nowMs >= dueAtMs)) {
      const inMs = await store.nextDueInMs(keys)
      dueAtMs = inMs === null ? Number.POSITIVE_INFINITY : nowMs + inMs
    }
    const dueInMs = full || dueAtMs === Number.POSITIVE_INFINITY ? null : Math.max(0, dueAtMs - nowMs)
    const over = new AbortController()
    const signal = AbortSignal.any([over.signal, stopped.signal])
    const naps = [bell.next(signal), realClock.sleep(sweepMs, signal)]
    if (dueInMs !== null)
      naps.push(clock.sleep(Math.min(Math.max(1, Math.ceil(dueInMs)), MAX_NAP_MS), signal))
    try {
      await Promise.race(naps)
    } finally {
      over.abort()
      await Promise.allSettled(naps)
    }
  }

  const claimLoop = async (): Promise<void> => {
    while (!stopped.signal.aborted) {
      try {
        bell.clear()
        if (executor.current === null) await Promise.race([executor.held(), whenAborted(stopped.signal)])
        // Before the look: a hand that gets free while it lasts must not go unseen.
        busy = true
        const claims = await claim()
        busy = claims.full
        await rest(claims)
      } catch (error) {
        if (stopped.signal.aborted) return
        const event = 'saga.claim_failed'
        if (error instanceof DatabaseUnavailable) log.debug({ event, err: error })
        else log.error({ event, err: error })
        await realClock.sleep(DATABASE_RETRY_MS, stopped.signal).catch(() => undefined)
      }
    }
  }

  /** Trust is checked by its own beat: a database that does not answer must not delay the end of it. */
  const watchTrust = async (): Promise<void> => {
    while (!heart.signal.aborted) {
      crew.checkTrust()
      await realClock.sleep(leaseTtlMs / 15, heart.signal).catch(() => undefined)
    }
  }
  const renewLeases = async (): Promise<void> => {
    while (!heart.signal.aborted) {
      await realClock.sleep(leaseTtlMs / 3, heart.signal).catch(() => undefined)
      try {
        await crew.renewLeases()
        if (formerIds.size > 0 && realClock.monotonicMs() < forgivingUntilMs)
          await store.forgive([...formerIds])
      } catch (error) {
        log.debug({ event: 'saga.renewal_failed', err: error })
      }
    }
  }
  const startHeart = (): void => {
    if (loops.length === 0) loops = [watchTrust(), renewLeases()]
  }

  return {
    wake(inMs = 0) {
      dueAtMs = Math.min(dueAtMs, clock.monotonicMs() + inMs)
      bell.ring()
    },
    offer() {
      const identity = executor.current
      if (!running || identity === null || stopped.signal.aborted || crew.size >= concurrency)
        return undefined
      follow(identity)
      return { executorId: identity.id, askedMs: realClock.monotonicMs() }
    },
    // Also when it stops meanwhile, or its lease has run out: then the run ends at once and gives the lease back.
    take: launch,
    carries: (sagaId) => crew.carries(sagaId),
    run() {
      running = true
      if (stopped.signal.aborted) throw new Error('Sagas have been stopped')
      startHeart()
      loops.push(claimLoop())
    },
    async drain() {
      startHeart()
      await executor.held()
      for (;;) {
        // A look at everything, not only at what is free.
        lastSweepMs = Number.NEGATIVE_INFINITY
        const { claimed } = await claim()
        if (claimed === 0 && crew.size === 0) return crew.settled()
        await crew.settled()
      }
    },
    async stop(graceMs) {
      const reason = new Error('sagas are stopping')
      stopped.abort(reason)
      // At once: what a claim under way brings in now is given back.
      crew.drain()
      await claiming
      const enough = new AbortController()
      const patience = realClock.sleep(graceMs, enough.signal).then(
        () => {
          crew.abandonAll(reason)
          return realClock.sleep(ABANDON_WAIT_MS, enough.signal).catch(() => undefined)
        },
        () => undefined, // all ended before
      )
      await Promise.race([crew.settled(), patience])
      enough.abort()
      heart.abort()
      crew.close()
      await Promise.all(loops)
    },
  }
}
