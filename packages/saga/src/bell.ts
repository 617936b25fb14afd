/** Wakes one loop. A ring while nobody listens is not lost. */
export interface Bell {
  ring(): void
  /** Forgets earlier rings: call it before looking at what they were about. */
  clear(): void
  /** Resolves at the next ring, at once if it rang since `clear`, or when `signal` fires. */
  next(signal: AbortSignal): Promise<void>
}

export function openBell(): Bell {
  let rung = Promise.withResolvers<void>()
  let ringing = false
  return {
    ring() {
      ringing = true
      rung.resolve()
    },
    clear() {
      if (!ringing) return
      ringing = false
      rung = Promise.withResolvers()
    },
    next: (signal) => Promise.race([rung.promise, whenAborted(signal)]),
  }
}

/** Resolves when `signal` fires. */
export function whenAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
