import type { ServiceName } from '@cloudphone/contracts/services'

/** Where an instance of a service answers: `http://host:port`. */
export type Address = string

/** The port behind which addresses of services stand. */
export interface Registry {
  /** Makes an instance known from now on. */
  register(service: ServiceName, address: Address): Promise<void>
  /** Takes it out of rotation: the first thing a drain does. */
  deregister(service: ServiceName, address: Address): Promise<void>
  /** The healthy instances, at least one when any is known. */
  lookup(service: ServiceName): Promise<readonly Address[]>
  close(): Promise<void>
}

/**
 * Addresses given once, plus those of instances in this process. The embedded default, and the fallback of any other.
 */
export function staticRegistry(given: Partial<Record<ServiceName, readonly Address[]>> = {}): Registry {
  const known = new Map<ServiceName, Set<Address>>(
    Object.entries(given).map(([name, addresses]) => [name as ServiceName, new Set(addresses)]),
  )
  return {
    register: async (service, address) => {
      known.set(service, (known.get(service) ?? new Set()).add(address))
    },
    deregister: async (service, address) => {
      known.get(service)?.delete(address)
    },
    lookup: async (service) => [...(known.get(service) ?? [])],
    close: async () => known.clear(),
  }
}
