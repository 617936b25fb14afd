/* Terminology:
 * - revocation: the early end of a session, of an API key, or of all tokens of a user up to an issue (epoch)
 * - watch: hears of revocations by a long poll of the users service, within the time of a round trip
 */
import { ListRevocations, type Revocation } from '@cloudphone/contracts/api/users-api'
import type { Clock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import { common } from './problem.ts'
import type { RevocationChange, RevocationWatch } from './revocations.ts'
import type { ServiceClient } from './service-client.ts'

/** How long the users service holds an answer back; an instance of it that hangs is left after a second more. */
const waitSeconds = 5
const retryMs = 250
const breathMs = 50
/** The users service forgets revocations when the longest-lived token has expired (`USERS_ACCESS_TOKEN_SECONDS`). */
const longestSilenceMs = 10 * 60_000
/** An access token lives a day at most, and what it was revoked by need not be known longer. */
const keptMs = 86_400_000

/** Begins to watch; while the users service is away, what is known stays in force and the watch goes on trying. */
export function watchRevocations(options: {
  client: ServiceClient
  clock: Clock
  log: Logger
}): RevocationWatch {
  const { client, clock, log } = options
  const sessions = new Map<string, { heardAtMs: number }>()
  const epochs = new Map<string, { heardAtMs: number; epoch: number }>()
  const listeners = new Set<(change: RevocationChange) => void>()
  const stopping = new AbortController()
  let cursor: string | undefined
  let heardAtMs = clock.monotonicMs()
  let isLost = false
  let loading: Promise<void> | undefined

  const apply = (revocation: Revocation): void => {
    if (revocation.kind === 'session') putLast(sessions, revocation.id, { heardAtMs })
    if (revocation.kind === 'user') {
      const epoch = Math.max(revocation.epoch, epochs.get(revocation.id)?.epoch ?? 0)
      putLast(epochs, revocation.id, { heardAtMs, epoch })
    }
  }

  const poll = async (wait: number): Promise<void> => {
    const query = { wait, ...(cursor !== undefined && { after: cursor }) }
    const timeoutMs = (wait + 1) * 1000
    const heard = await client.call(ListRevocations, { query, timeoutMs, signal: stopping.signal })
    const missed = clock.monotonicMs() - heardAtMs > longestSilenceMs
    const isFirst = cursor === undefined
    cursor = heard.cursor
    heardAtMs = clock.monotonicMs()
    heard.revocations.forEach(apply)
    forgetUntil(heardAtMs - keptMs, sessions)
    forgetUntil(heardAtMs - keptMs, epochs)
    if (isLost) log.info({ event: 'revocations.heard_again' })
    isLost = false
    if (isFirst || (heard.revocations.length === 0 && !missed)) return
    const keys = heard.revocations.some(({ kind }) => kind === 'keys')
    for (const listener of listeners) listener({ keys, missed })
    // What comes in a flood is asked for in portions, not one by one.
    await clock.sleep(breathMs, stopping.signal).catch(() => undefined)
  }

  /** The first look, which a request and the watch itself may both wait for. */
  const load = (): Promise<void> => {
    loading ??= poll(0).finally(() => {
      loading = undefined
    })
    return loading
  }
  const lost = (error: unknown): void => {
    // At the start of a platform the users service comes when it comes: nothing was heard, so nothing is lost.
    if (!isLost && cursor !== undefined) log.warn({ event: 'revocations.not_heard', err: error })
    isLost = cursor !== undefined
  }
  const watch = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      try {
        await (cursor === undefined ? load() : poll(waitSeconds))
      } catch (error) {
        if (stopping.signal.aborted) return
        lost(error)
        await clock.sleep(retryMs, stopping.signal).catch(() => undefined)
      }
    }
  }
  const watching = watch()

  return {
    known: async () => {
      if (cursor !== undefined) return
      await load().catch((error: unknown) => {
        const problem = common.service_unavailable({ service: 'users' })
        problem.cause = error
        throw problem
      })
    },
    isRevoked: ({ userId, sessionId, epoch = 0 }) =>
      sessions.has(sessionId) || epoch < (epochs.get(userId)?.epoch ?? 0),
    onChange: (listener) => {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    close: async () => {
      stopping.abort(new Error('the watch is closed'))
      await watching
    },
  }
}

/** A Map keeps the order in which keys came, so that its front is what was heard longest ago. */
function putLast<Value>(map: Map<string, Value>, key: string, value: Value): void {
  map.delete(key)
  map.set(key, value)
}

function forgetUntil(ms: number, map: Map<string, { heardAtMs: number }>): void {
  for (const [key, { heardAtMs }] of map) {
    if (heardAtMs > ms) return
    map.delete(key)
  }
}
