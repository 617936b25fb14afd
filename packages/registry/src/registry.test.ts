import { expect, test } from 'vitest'
import { registryContract } from './registry.contract.ts'
import { staticRegistry } from './registry.ts'

registryContract('the static registry', async () => {
  let port = 30_000
  const registry = staticRegistry()
  return {
    registry,
    instance: async () => {
      port += 1
      return `http://127.0.0.1:${port}`
    },
    close: () => registry.close(),
  }
})

test('addresses given at the start are found beside those of this process', async () => {
  const registry = staticRegistry({ users: ['http://10.0.0.1:30001'] })
  await registry.register('users', 'http://127.0.0.1:30001')
  expect(await registry.lookup('users')).toEqual(['http://10.0.0.1:30001', 'http://127.0.0.1:30001'])
})
