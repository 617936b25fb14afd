import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Address, Registry } from './registry.ts'

/** A registry under test. */
export interface RegistryBed {
  readonly registry: Registry
  /** An instance that is well: an address where `/health/ready` is answered. */
  instance(): Promise<Address>
  /** Ends the instances and closes the registry. */
  close(): Promise<void>
}

/** Registers what every adapter of the registry must do; each test gets one that knows nothing yet. */
export function registryContract(name: string, open: () => Promise<RegistryBed>): void {
  describe(name, () => {
    let bed: RegistryBed
    beforeEach(async () => {
      bed = await open()
    })
    afterEach(() => bed.close())
    const found = async () => [...(await bed.registry.lookup('users'))].sort()

    test('who was never registered is not found', async () => {
      expect(await bed.registry.lookup('users')).toEqual([])
    })

    test('instances are found from their registration to their deregistration, each once', async () => {
      const { registry } = bed
      const [one, other] = [await bed.instance(), await bed.instance()]
      await registry.register('users', one)
      await expect.poll(found).toEqual([one])
      await registry.register('users', other)
      await registry.register('users', one)
      await expect.poll(found).toEqual([one, other].sort())
      await registry.deregister('users', one)
      await registry.deregister('users', one)
      await expect.poll(found).toEqual([other])
    })

    test('each service has its own', async () => {
      const { registry } = bed
      const [users, devices] = [await bed.instance(), await bed.instance()]
      await registry.register('users', users)
      await registry.register('devices', devices)
      await expect.poll(found).toEqual([users])
      await expect.poll(() => registry.lookup('devices')).toEqual([devices])
      await registry.deregister('devices', users)
      expect(await found()).toEqual([users])
    })
  })
}
