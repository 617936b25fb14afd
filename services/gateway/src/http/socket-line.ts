import { connect, type Socket } from 'node:net'
import type { ServiceName } from '@cloudphone/contracts/services'
import { admit, connectTimeoutMs, type Gear, unavailable } from './upstream-pool.ts'

/** A connection to an instance, which counts as pending there until `release`. */
export interface Line {
  readonly socket: Socket
  release(): void
}

/** Opens a plain connection to an instance. @throws ProblemError `service_unavailable` when none can be reached. */
export async function openLine(gear: Gear, service: ServiceName): Promise<Line> {
  const { registry, clock } = gear
  const pool = gear.poolOf(service)
  const { balancer } = pool
  const refusal = admit(gear, pool, await registry.lookup(service))
  if (refusal !== undefined) throw refusal
  const tried: string[] = []
  let failure: unknown
  for (;;) {
    const address = balancer.choose(tried)
    if (address === undefined) {
      balancer.noteFailed(clock.monotonicMs())
      throw unavailable(service, failure)
    }
    try {
      const socket = await connectTo(address)
      balancer.note(address, 'served', clock.monotonicMs())
      return { socket, release: () => balancer.release(address) }
    } catch (error) {
      balancer.release(address)
      balancer.note(address, 'unreachable', clock.monotonicMs())
      tried.push(address)
      failure = error
    }
  }
}

function connectTo(address: string): Promise<Socket> {
  const { hostname, port } = new URL(address)
  return new Promise((resolve, reject) => {
    const socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) })
    socket.setTimeout(connectTimeoutMs, () => socket.destroy(new Error('connect timed out')))
    socket.once('error', reject)
    socket.once('connect', () => {
      socket.setTimeout(0)
      socket.off('error', reject)
      resolve(socket)
    })
  })
}
