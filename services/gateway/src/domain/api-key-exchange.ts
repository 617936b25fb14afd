import { createHash } from 'node:crypto'
import { ExchangeApiKey } from '@cloudphone/contracts/api/users-api'
import type { Clock } from '@cloudphone/observe/clock'
import { ProblemError } from '@cloudphone/runtime/problem'
import type { ServiceClient } from '@cloudphone/runtime/service-client'

/** Turns API keys into access tokens, at the users service and from memory. */
export interface ApiKeyExchange {
  /** True when the key's token, or its refusal, is known here: asking costs nothing. */
  knows(key: string): boolean
  /** The token of a key. @throws ProblemError `invalid_api_key`, `service_unavailable`. */
  tokenOf(key: string): Promise<string>
  /** Asks for each key anew: their tokens may say what is not true any more. */
  forget(): void
}

interface Kept {
  readonly outcome: Promise<string>
  /** Monotonic; undefined while the users service is being asked. */
  untilMs: number | undefined
}

const maxKept = 10_000
/** How long a refusal is remembered: a wrong key in a loop asks the users service every few seconds only. */
const refusalMs = 5_000

/**
 * Keeps tokens by the hash of their key for half of their life: the other half is room for requests on their way and for
 * clocks that differ. Requests with the same new key at one time ask once.
 */
export function openApiKeyExchange(client: ServiceClient, clock: Clock): ApiKeyExchange {
  const kept = new Map<string, Kept>()

  const ask = async (key: string, entry: () => Kept | undefined, forget: () => void): Promise<string> => {
    try {
      const { accessToken, expiresIn } = await client.call(ExchangeApiKey, { body: { key } })
      const own = entry()
      if (own !== undefined) own.untilMs = clock.monotonicMs() + expiresIn * 500
      return accessToken
    } catch (error) {
      const own = entry()
      const isRefusal = error instanceof ProblemError && error.status === 401
      if (own !== undefined && isRefusal) own.untilMs = clock.monotonicMs() + refusalMs
      else forget()
      throw error
    }
  }

  const find = (hash: string): Kept | undefined => {
    const found = kept.get(hash)
    const isOver = found?.untilMs !== undefined && found.untilMs <= clock.monotonicMs()
    return isOver ? undefined : found
  }

  return {
    forget: () => kept.clear(),
    knows: (key) => find(hashOf(key))?.untilMs !== undefined,
    tokenOf: (key) => {
      const hash = hashOf(key)
      const found = find(hash)
      if (found !== undefined) return found.outcome
      const outcome = ask(
        key,
        () => kept.get(hash),
        () => kept.delete(hash),
      )
      kept.delete(hash)
      kept.set(hash, { outcome, untilMs: undefined })
      const oldest = kept.size > maxKept ? kept.keys().next() : undefined
      if (oldest?.done === false) kept.delete(oldest.value)
      return outcome
    },
  }
}

function hashOf(key: string): string {
  return createHash('sha256').update(key).digest('base64')
}
