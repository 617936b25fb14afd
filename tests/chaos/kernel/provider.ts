import { once } from 'node:events'
import { createServer } from 'node:http'
import { text } from 'node:stream/consumers'
import type { ProviderRequest } from './provider-client.ts'

/** One request and what came of it, in the order in which the provider carried them out. */
export interface Touch extends ProviderRequest {
  readonly atMs: number
  /** `stale`: refused for its fence; `gone`: refused because the thing has been destroyed. */
  readonly outcome: 'created' | 'found' | 'destroyed' | 'absent' | 'stale' | 'gone'
  readonly number: number
}

/** The provider of one cell. */
export interface ProviderBooks {
  readonly url: string
  /** All that ever happened there. */
  readonly history: readonly Touch[]
  close(): void
}

/**
 * The outside world: a server of its own that no fault touches. It carries out creations and destructions under the
 * caller's key, refuses a fence older than one it has seen of the same owner, and writes everything down.
 */
export interface Provider extends AsyncDisposable {
  open(): ProviderBooks
}

export async function openProvider(): Promise<Provider> {
  const rooms = new Map<string, (request: ProviderRequest) => Touch>()
  const server = createServer((request, response) => {
    const answer = async (): Promise<object> => {
      const room = rooms.get(request.url ?? '')
      if (room === undefined) return { error: 'closed' }
      const { outcome, number } = room(JSON.parse(await text(request)) as ProviderRequest)
      return outcome === 'stale' || outcome === 'gone' ? { error: outcome } : { number }
    }
    answer().then(
      (body) => response.end(JSON.stringify(body)),
      // A caller that died in the middle of its request.
      () => response.destroy(),
    )
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  let opened = 0
  return {
    open() {
      opened += 1
      const path = `/${opened}`
      const { carryOut, history } = openBooks()
      rooms.set(path, carryOut)
      return {
        url: `http://127.0.0.1:${port}${path}`,
        history,
        close() {
          rooms.delete(path)
        },
      }
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

function openBooks() {
  const history: Touch[] = []
  const fences = new Map<string, number>()
  const alive = new Map<string, { kind: string; number: number }>()
  const destroyed = new Set<string>()

  const outcomeOf = ({ op, kind, key, owner, fence }: ProviderRequest): Touch['outcome'] => {
    if (fence < (fences.get(owner) ?? 0)) return 'stale'
    fences.set(owner, fence)
    if (op === 'destroy') {
      destroyed.add(key)
      return alive.delete(key) ? 'destroyed' : 'absent'
    }
    if (alive.has(key)) return 'found'
    // A command that comes after its own undo: the fence lets it pass only if the kernel has gone wrong.
    if (destroyed.has(key)) return 'gone'
    const taken = new Set([...alive.values()].filter((one) => one.kind === kind).map((one) => one.number))
    let number = 1
    while (taken.has(number)) number += 1
    alive.set(key, { kind, number })
    return 'created'
  }

  return {
    history,
    carryOut(request: ProviderRequest): Touch {
      const before = alive.get(request.key)?.number
      const outcome = outcomeOf(request)
      const number = alive.get(request.key)?.number ?? before ?? 0
      const touch = { ...request, atMs: Date.now(), outcome, number }
      history.push(touch)
      return touch
    },
  }
}
