/* Which instance of a service gets a request, and whether the service gets any. Decides from what it was told and the time
 * it is given; it neither sends nor waits.
 *
 * Terminology:
 * - pending: what an instance has been given and not finished: requests without an answer, WebSockets that are open
 * - ejected: out of rotation until a probe finds the instance well again
 * - probe: a question for an instance's health that risks nobody's request
 * - breaker: refuses requests for a service of which no instance answers, so that callers learn it at once
 */

/** How an instance served a request. */
export type Outcome =
  /** It answered. */
  | 'served'
  /** It answered 502 to 504, or not in time: one of these says little, five in a row say enough. */
  | 'failing'
  /** Its connection was refused or broke: it is gone. */
  | 'unreachable'

/** What somebody may want to know of; told when it happens. */
export interface BalancerEvents {
  ejected(fact: { address: string; forMs: number }): void
  readmitted(fact: { address: string }): void
  /** No instance answers: requests are refused for a while. */
  opened(fact: { forMs: number }): void
  closed(): void
}

export type BreakerState = 'closed' | 'half-open' | 'open'

interface Instance {
  readonly address: string
  pending: number
  /** `failing` in a row. */
  failures: number
  /** In rotation when undefined; else when the next probe is due. */
  probeAtMs: number | undefined
  /** A probe is under way, or its answer never came. */
  isProbed: boolean
  ejections: number
  readmittedAtMs: number
}

const failuresToEject = 5
const failuresToOpen = 5
const firstEjectionMs = 1_000
const longestEjectionMs = 30_000
/** Who stayed well for so long begins with the shortest ejection again. */
const forgivenAfterMs = 60_000
const firstOpenMs = 1_000
const longestOpenMs = 8_000
/** While the answer to a probe, or to a trial of the breaker, is awaited, the next one may go after this time. */
const nextLookMs = 1_000

/** Balances the instances of one service. */
export class Balancer {
  readonly #events: BalancerEvents
  readonly #instances = new Map<string, Instance>()
  #addresses: readonly string[] = []
  #turn = 0
  #failedRequests = 0
  #openMs = 0
  #openedAtMs = 0
  /** Undefined: the breaker is closed. */
  #trialAtMs: number | undefined

  constructor(events: BalancerEvents) {
    this.#events = events
  }

  /** Takes over what the registry says now; instances that it no longer names are forgotten with their last request. */
  know(addresses: readonly string[], nowMs: number): void {
    if (isSame(addresses, this.#addresses)) return
    this.#addresses = [...addresses]
    for (const address of addresses) {
      if (this.#instances.has(address)) continue
      this.#instances.set(address, {
        ...{ address, pending: 0, failures: 0, probeAtMs: undefined, isProbed: false, ejections: 0 },
        readmittedAtMs: nowMs,
      })
      // Somebody new may answer: no caller waits for the end of a pause that was meant for others.
      if (this.#trialAtMs !== undefined) this.#trialAtMs = nowMs
    }
    for (const [address, { pending }] of this.#instances) {
      if (pending === 0 && !addresses.includes(address)) this.#instances.delete(address)
    }
  }

  /**
   * Asks the breaker. Undefined: go on; else how long to wait, in ms. With the time up, one request a second passes as a
   * trial.
   */
  refusal(nowMs: number): number | undefined {
    if (this.#trialAtMs === undefined) return undefined
    if (nowMs < this.#trialAtMs) return this.#trialAtMs - nowMs
    this.#trialAtMs = nowMs + nextLookMs
    return undefined
  }

  /**
   * The instance with the least pending, in turn where several have that; one out of rotation only when every other one is
   * among `tried`. Undefined when all are. Counts as pending until `release`.
   */
  choose(tried: readonly string[]): string | undefined {
    const best = this.#least(tried, false) ?? this.#least(tried, true)
    if (best === undefined) return undefined
    best.pending += 1
    return best.address
  }

  /** True when somebody else is in rotation. */
  hasOther(address: string): boolean {
    for (const other of this.#addresses) {
      if (other !== address && this.#instances.get(other)?.probeAtMs === undefined) return true
    }
    return false
  }

  /** An instance is done with what `choose` gave it. */
  release(address: string): void {
    const instance = this.#instances.get(address)
    if (instance === undefined) return
    instance.pending -= 1
    if (instance.pending === 0 && !this.#addresses.includes(address)) this.#instances.delete(address)
  }

  /** Learns from a request or a probe. */
  note(address: string, outcome: Outcome, nowMs: number): void {
    const instance = this.#instances.get(address)
    if (instance === undefined) return
    if (outcome === 'served') {
      instance.failures = 0
      if (instance.probeAtMs !== undefined) this.#readmit(instance, nowMs)
      this.#close()
      return
    }
    instance.failures += 1
    if (outcome === 'unreachable' || instance.failures >= failuresToEject) this.#eject(instance, nowMs)
  }

  /** A request for the service found nobody who answered it. */
  noteFailed(nowMs: number): void {
    this.#failedRequests += 1
    if (this.#failedRequests < failuresToOpen) return
    // Requests that were under way when it opened, or a trial that hangs, do not make the pause longer again and again.
    if (this.#trialAtMs !== undefined && nowMs < this.#openedAtMs + this.#openMs) return
    this.#openMs = this.#trialAtMs === undefined ? firstOpenMs : Math.min(this.#openMs * 2, longestOpenMs)
    this.#openedAtMs = nowMs
    this.#trialAtMs = nowMs + this.#openMs
    this.#events.opened({ forMs: this.#openMs })
  }

  /** The instances to ask for their health now. Each is named again a second later, until `note` has heard of it. */
  dueProbes(nowMs: number): string[] {
    const due: string[] = []
    for (const instance of this.#instances.values()) {
      if (instance.probeAtMs === undefined || instance.probeAtMs > nowMs) continue
      instance.probeAtMs = nowMs + nextLookMs
      instance.isProbed = true
      due.push(instance.address)
    }
    return due
  }

  /** True while somebody is out of rotation: only then are there probes to ask for. */
  get isWatching(): boolean {
    for (const { probeAtMs } of this.#instances.values()) if (probeAtMs !== undefined) return true
    return false
  }

  /** For metrics. */
  state(nowMs: number): { pending: number; ejected: number; breaker: BreakerState } {
    let [pending, ejected] = [0, 0]
    for (const instance of this.#instances.values()) {
      pending += instance.pending
      if (instance.probeAtMs !== undefined) ejected += 1
    }
    const trialAtMs = this.#trialAtMs
    const breaker = trialAtMs === undefined ? 'closed' : nowMs < trialAtMs ? 'open' : 'half-open'
    return { pending, ejected, breaker }
  }

  #least(tried: readonly string[], ofEjected: boolean): Instance | undefined {
    const count = this.#addresses.length
    let best: Instance | undefined
    let bestAt = 0
    for (let step = 0; step < count; step += 1) {
      const at = (this.#turn + step) % count
      const instance = this.#instances.get(this.#addresses[at] ?? '')
      if (instance === undefined || (instance.probeAtMs !== undefined) !== ofEjected) continue
      if (tried.includes(instance.address)) continue
      if (best !== undefined && instance.pending >= best.pending) continue
      best = instance
      bestAt = at
    }
    if (best !== undefined) this.#turn = (bestAt + 1) % count
    return best
  }

  /** Never the last one in rotation: a bad instance is better than none, and the breaker guards it. */
  #eject(instance: Instance, nowMs: number): void {
    const isOut = instance.probeAtMs !== undefined
    if (!isOut && !this.hasOther(instance.address)) return
    // Requests that were on their way together fail together: that is one ejection.
    if (isOut && !instance.isProbed) return
    if (nowMs - instance.readmittedAtMs > forgivenAfterMs && !isOut) instance.ejections = 0
    const forMs = Math.min(firstEjectionMs * 2 ** instance.ejections, longestEjectionMs)
    instance.ejections += 1
    instance.probeAtMs = nowMs + forMs
    instance.isProbed = false
    if (!isOut) this.#events.ejected({ address: instance.address, forMs })
  }

  #readmit(instance: Instance, nowMs: number): void {
    instance.probeAtMs = undefined
    instance.readmittedAtMs = nowMs
    this.#events.readmitted({ address: instance.address })
  }

  #close(): void {
    this.#failedRequests = 0
    if (this.#trialAtMs === undefined) return
    this.#trialAtMs = undefined
    this.#events.closed()
  }
}

function isSame(some: readonly string[], others: readonly string[]): boolean {
  if (some.length !== others.length) return false
  for (let at = 0; at < some.length; at += 1) if (some[at] !== others[at]) return false
  return true
}

const perRequest = 0.2
const mostSaved = 20

/**
 * How often requests may be sent again: one for every five that were sent, and some in hand. When everything fails, the
 * services get a fifth more work instead of twice as much.
 */
export class RetryBudget {
  #saved = mostSaved

  /** A request was sent. */
  earn(): void {
    this.#saved = Math.min(this.#saved + perRequest, mostSaved)
  }

  /** Takes one retry, if there is any. */
  spend(): boolean {
    if (this.#saved < 1) return false
    this.#saved -= 1
    return true
  }
}
