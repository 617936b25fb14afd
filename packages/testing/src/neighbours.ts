import { EventEmitter, once } from 'node:events'
import type { Caller } from '@cloudphone/contracts/access'
import { Jwks, ListRevocations, type Revocation } from '@cloudphone/contracts/api/users-api'
import type { UserId } from '@cloudphone/contracts/id'
import type { ServiceName } from '@cloudphone/contracts/services'
import { systemClock } from '@cloudphone/observe/clock'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import type { Registry } from '@cloudphone/registry/registry'
import type { ClosingStack } from '@cloudphone/runtime/closing'
import { type Binding, bind, openHttpServer } from '@cloudphone/runtime/http-server'
import { openTokenVerifier, type ServiceTokens } from '@cloudphone/runtime/tokens'
import { openTokenMint } from './token-mint.ts'

/** Services that a town does not run, answered for over real HTTP; see `Town` for their rules. */
export interface Neighbours {
  neighbour(service: ServiceName, bindings: readonly Binding[]): Promise<void>
  tokenFor(caller: Caller, lifeSeconds?: number): string
  /** Ends all tokens of a user that there are. */
  revoke(userId: UserId): void
  /** The real users service comes: nobody else vouches for tokens any more. */
  leaveAccounts(): Promise<void>
}

export async function openNeighbours(town: {
  registry: Registry
  serviceTokens: ServiceTokens
  closing: ClosingStack
}): Promise<Neighbours> {
  const { registry, serviceTokens, closing } = town
  const { now } = systemClock
  const mint = openTokenMint()
  const keys = bind(Jwks, async () => mint.jwks)
  const revocations: Revocation[] = []
  const revoked = new EventEmitter()
  // A question that waits is answered when something is revoked, its time is up or the asker goes.
  const feed = bind(ListRevocations, async ({ query: { wait, after }, signal }) => {
    const known = after === undefined ? revocations.length : Number(after)
    if (revocations.length === known) {
      await Promise.race([
        systemClock.sleep(wait * 1000, signal).catch(() => undefined),
        once(revoked, 'one', { signal }).catch(() => undefined),
      ])
    }
    return { cursor: String(revocations.length), revocations: revocations.slice(known) }
  })

  const raise = async (service: ServiceName, bindings: readonly Binding[]): Promise<string> => {
    const app = await openHttpServer(
      {
        ...{ service, log: silentLog(), metrics: openMetrics(service), sharedMetrics: undefined },
        ...{ tokens: openTokenVerifier({ fetchKeys: async () => mint.jwks, now }), serviceTokens },
        ...{ idempotency: undefined, ready: async () => true, uploadLimitBytes: 1024 ** 3 },
      },
      bindings,
    )
    closing.add(`neighbour ${service}`, app)
    const address = await app.listen({ host: '127.0.0.1', port: 0 })
    await registry.register(service, address)
    return address
  }

  const onlyKeys = await raise('users', [keys, feed])
  let isVouching = true
  return {
    neighbour: async (service, bindings) => {
      // Keys are asked for at any address of the users service, so all of them must have them.
      await raise(service, service === 'users' ? [keys, feed, ...bindings] : bindings)
      if (service === 'users') await registry.deregister('users', onlyKeys)
    },
    tokenFor: (caller, lifeSeconds) => {
      if (!isVouching) throw new Error('this town runs the real users service: sign in there')
      return mint.tokenFor(caller, lifeSeconds)
    },
    revoke: (userId) => {
      revocations.push({ kind: 'user', id: userId, epoch: 1 })
      revoked.emit('one')
    },
    leaveAccounts: async () => {
      isVouching = false
      await registry.deregister('users', onlyKeys)
    },
  }
}
