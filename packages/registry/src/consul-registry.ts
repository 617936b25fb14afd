/* Terminology:
 * - watch: follows the instances of one service by blocking queries, one after the other
 * - upkeep: looks whether the agent still knows the instances of this process, which one that was started anew does not
 */
import { type ServiceName, services } from '@cloudphone/contracts/services'
import type { Clock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'
import { type ConsulAgentOptions, openConsulAgent, type Registration } from './consul-agent.ts'
import type { Address, Registry } from './registry.ts'

export interface ConsulRegistryOptions extends ConsulAgentOptions {
  /** Only instances of the same installation find each other. */
  readonly installation: string
  /** Asked while Consul has never told of any instance. */
  readonly fallback: Registry
  readonly clock: Clock
  readonly log: Logger
  readonly metrics: Metrics
}

const waitSeconds = 10
const upkeepMs = 3_000
const retryMs = 500

/** What one watch knows. */
interface Watch {
  known: readonly Address[]
  /** Resolves with the first answer, or with its failure. */
  readonly begun: Promise<void>
}

/**
 * Opens the registry in Consul (1.8 or newer), behind an agent of this machine. Addresses are kept in this process: a
 * lookup asks nobody but the first time. While Consul is away, or knows of no healthy instance at all (as after it has lost
 * its state), those known last stay; it is found again by itself, and told again of what it has forgotten. Nothing here
 * fails for Consul's sake.
 */
export function openConsulRegistry(options: ConsulRegistryOptions): Registry {
  const { installation, fallback, clock, log, metrics } = options
  const agent = openConsulAgent(options)
  const stopping = new AbortController()
  const ours = new Map<string, Registration>()
  const watches = new Map<ServiceName, Watch>()
  const running: Promise<void>[] = []
  const failures = metrics.counter({
    name: 'registry_failures_total',
    help: 'Questions that Consul did not answer.',
    labels: ['operation'],
  })
  let isAway = false

  const hear = async <Answer>(operation: string, question: Promise<Answer>): Promise<Answer | undefined> => {
    try {
      const answer = await question
      if (isAway) log.info({ event: 'registry.back' })
      isAway = false
      return answer
    } catch (error) {
      if (stopping.signal.aborted) return undefined
      failures.inc({ operation })
      if (!isAway) log.warn({ event: 'registry.away', operation, err: error })
      isAway = true
      return undefined
    }
  }
  /** Again and again until the registry closes. */
  const loop = async (turn: () => Promise<number>): Promise<void> => {
    while (!stopping.signal.aborted) {
      const restMs = await turn()
      if (restMs > 0) await clock.sleep(restMs, stopping.signal).catch(() => undefined)
    }
  }

  const watch = (service: ServiceName): Watch => {
    const what = { name: services[service].registryName, tag: installation, waitSeconds }
    let index = 0
    const started = Promise.withResolvers<void>()
    const own: Watch = { known: [], begun: started.promise }
    running.push(
      loop(async () => {
        const answer = await hear('lookup', agent.passing({ ...what, index }, stopping.signal))
        // An index that runs backwards, or of a Consul that was away, is one of another history.
        index = answer === undefined || answer.index < index ? 0 : answer.index
        if (answer !== undefined && answer.addresses.length > 0) own.known = answer.addresses
        started.resolve()
        return index === 0 ? retryMs : 0
      }),
    )
    watches.set(service, own)
    return own
  }

  const upkeep = async (): Promise<number> => {
    if (ours.size === 0) return upkeepMs
    const registered = await hear('upkeep', agent.registered())
    if (registered === undefined) return upkeepMs
    for (const [id, registration] of ours) {
      if (registered.has(id)) continue
      log.info({ event: 'registry.registered_again', id })
      await hear('register', agent.register(registration))
      // It was taken out of rotation while that was on its way.
      if (!ours.has(id)) await hear('deregister', agent.deregister(id))
    }
    return upkeepMs
  }
  running.push(loop(upkeep))

  return {
    register: async (service, address) => {
      await fallback.register(service, address)
      const registration = registrationOf(service, address, installation)
      ours.set(registration.id, registration)
      await hear('register', agent.register(registration))
    },
    deregister: async (service, address) => {
      await fallback.deregister(service, address)
      const { id } = registrationOf(service, address, installation)
      ours.delete(id)
      await hear('deregister', agent.deregister(id))
    },
    lookup: async (service) => {
      const own = watches.get(service) ?? watch(service)
      await own.begun
      return own.known.length > 0 ? own.known : await fallback.lookup(service)
    },
    close: async () => {
      stopping.abort(new Error('the registry closes'))
      await Promise.all(running)
      await agent.close()
      await fallback.close()
    },
  }
}

function registrationOf(service: ServiceName, address: Address, tag: string): Registration {
  const { registryName: name } = services[service]
  const { host } = new URL(address)
  return { id: `${name}-${tag}-${host.replaceAll(/[^\w.]+/g, '-')}`, name, tag, address }
}
