import type { Clock } from '@cloudphone/observe/clock'
import type { Metrics } from '@cloudphone/observe/metrics'
import { type Cache, CacheAwayError } from './cache.ts'

/** How long a cache that was away is left alone: who asks meanwhile does not wait for it. */
const leaveAloneMs = 1_000

/**
 * Opens a cache that is `shared` while that answers, and `own` while it does not. One question in a second finds out
 * whether it is back.
 */
export function openFallbackCache({
  shared,
  own,
  clock,
  metrics,
}: {
  shared: Cache
  own: Cache
  clock: Pick<Clock, 'monotonicMs'>
  metrics: Metrics
}): Cache {
  const fallbacks = metrics.counter({
    name: 'cache_fallbacks_total',
    help: 'Questions that this process answered by itself since the shared cache did not.',
    labels: ['operation'],
  })
  let askAgainMs = 0

  const ask = async <Answer>(
    operation: string,
    question: (cache: Cache) => Answer | Promise<Answer>,
  ): Promise<Answer> => {
    const nowMs = clock.monotonicMs()
    if (nowMs >= askAgainMs) {
      // Until this one has its answer the others do not wait for theirs.
      if (askAgainMs > 0) askAgainMs = nowMs + leaveAloneMs
      try {
        const answer = await question(shared)
        askAgainMs = 0
        return answer
      } catch (error) {
        if (!(error instanceof CacheAwayError)) throw error
        askAgainMs = clock.monotonicMs() + leaveAloneMs
      }
    }
    fallbacks.inc({ operation })
    return question(own)
  }

  return {
    get: (key) => ask('get', (cache) => cache.get(key)),
    set: (key, value, ttlMs) => ask('set', (cache) => cache.set(key, value, ttlMs)),
    // What is not true any more must not come back in the next outage.
    delete: async (key) => {
      await own.delete(key)
      await ask('delete', (cache) => cache.delete(key))
    },
    take: (key, limits) => ask('take', (cache) => cache.take(key, limits)),
    close: async () => {
      await shared.close()
      await own.close()
    },
  }
}
