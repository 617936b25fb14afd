import { setTimeout as sleep } from 'node:timers/promises'

const LOOK_EVERY_MS = 60

/** Looks again and again; false when the time is over before it is true. */
export async function comesTrue(look: () => Promise<boolean>, withinMs: number): Promise<boolean> {
  const deadlineMs = performance.now() + withinMs
  while (performance.now() < deadlineMs) {
    if (await look()) return true
    await sleep(LOOK_EVERY_MS)
  }
  return false
}

/** @throws Error when the work takes longer; it goes on, and nobody waits for it. */
export async function within(work: Promise<void>, ms: number): Promise<void> {
  const over = new AbortController()
  try {
    await Promise.race([
      work,
      sleep(ms, undefined, { signal: over.signal }).then(() => {
        throw new Error(`no answer within ${ms} ms`)
      }),
    ])
  } finally {
    over.abort()
  }
}
