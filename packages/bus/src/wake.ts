import type { Clock } from '@cloudphone/observe/clock'

/** What a loop waits on between its turns. Raised while the loop is at work, it makes the next wait return at once. */
export interface Wake {
  raise(): void
  /** Resolves at the next `raise`, or after `timeoutMs`. For one waiter at a time. */
  wait(timeoutMs: number): Promise<void>
}

export function openWake(clock: Clock): Wake {
  let raised = false
  let waiting: (() => void) | undefined
  return {
    raise() {
      raised = true
      waiting?.()
    },
    async wait(timeoutMs) {
      if (!raised) {
        const timer = new AbortController()
        const woken = new Promise<void>((resolve) => {
          waiting = resolve
        })
        // The timer that loses is aborted, which is all its rejection says.
        const timeout = clock.sleep(timeoutMs, timer.signal).catch(() => undefined)
        await Promise.race([woken, timeout])
        waiting = undefined
        timer.abort()
      }
      raised = false
    },
  }
}
