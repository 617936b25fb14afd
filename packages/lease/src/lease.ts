/* Terminology:
 * - lease: the right of one process to run a loop, until it expires or is given back
 * - epoch: rises by one at each change of holder; a write that carries an old epoch is refused (fencing)
 * - trust deadline: the local, monotonic instant after which a holder must not act, whatever its clock says
 */

/** A lease that is held. `signal` fires when it is lost or its trust deadline has passed: stop acting then. */
export interface HeldLease {
  readonly name: string
  readonly epoch: number
  readonly signal: AbortSignal
}

/** What a leased loop does on each turn; it must be harmless when two holders do it at once. */
export type LeasedWork = (lease: HeldLease) => Promise<void>

export interface LeasedLoop {
  /**
   * Asks for a turn now: for tests and wake-ups. Resolves when a turn that began after the call has ended, or at once
   * when another process holds the lease. Never rejects: a failing turn is logged and counted.
   */
  nudge(): Promise<void>
  /** Lets the running turn end (its signal fires), then gives the lease back. */
  stop(): Promise<void>
}

export interface Leases {
  /**
   * Runs `work` every `everyMs` in exactly one of the processes that ask for the same name. A failing turn is logged,
   * counted and tried again at the next turn. Hand-over takes under 2 s after kill -9.
   */
  loop(options: { name: string; everyMs: number; work: LeasedWork }): LeasedLoop
  /** Tries to take a lease once; undefined when another process holds it. */
  tryAcquire(name: string, options?: { ttlMs?: number }): Promise<(HeldLease & AsyncDisposable) | undefined>
  /** Stops all loops and gives all leases back. Idempotent. */
  close(): Promise<void>
}
