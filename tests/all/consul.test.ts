import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { systemClock } from '@cloudphone/observe/clock'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { openConsulRegistry } from '@cloudphone/registry/consul-registry'
import { type Address, type Registry, staticRegistry } from '@cloudphone/registry/registry'
import { registryContract } from '@cloudphone/registry/registry.contract'
import { type ConsulServer, startConsul } from '@cloudphone/testing/consul'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'

let consul: ConsulServer
beforeAll(async () => {
  consul = await startConsul()
})
afterAll(() => consul?.close())

const metrics = openMetrics('test')
const opened: Registry[] = []
const instances = new Map<Address, Server>()
afterEach(async () => {
  for (const registry of opened.splice(0)) await registry.close()
  for (const address of instances.keys()) await end(address)
})

function open(installation: string, fallback = staticRegistry()): Registry {
  const registry = openConsulRegistry({
    ...{ url: consul.url, token: undefined, installation, fallback },
    ...{ clock: systemClock, log: silentLog(), metrics },
  })
  opened.push(registry)
  return registry
}

/** A server that is always ready. */
async function instance(): Promise<Address> {
  const server = createServer((_request, response) => response.end('{}'))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const url = `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`
  instances.set(url, server)
  return url
}

async function end(address: Address): Promise<void> {
  const server = instances.get(address)
  instances.delete(address)
  server?.closeAllConnections()
  await new Promise((resolve) => server?.close(resolve))
}

const found = (registry: Registry) => async () => [...(await registry.lookup('users'))].sort()
/** Consul may need a leader anew, and the registries their next turn. */
const within = { timeout: 30_000 }

registryContract('the registry in Consul', async () => {
  const registry = open(randomUUID())
  return { registry, instance, close: async () => undefined }
})

test('processes of an installation find each other’s instances, and no other installation’s', async () => {
  const installation = randomUUID()
  const [one, other, stranger] = [open(installation), open(installation), open(randomUUID())]
  const address = await instance()
  expect(await other.lookup('users')).toEqual([])
  await one.register('users', address)
  await expect.poll(found(other)).toEqual([address])
  expect(await stranger.lookup('users')).toEqual([])
})

test('an instance that died is out of rotation with its next check', async () => {
  const installation = randomUUID()
  const [registry, other] = [open(installation), open(installation)]
  const [dies, lives] = [await instance(), await instance()]
  await registry.register('users', dies)
  await registry.register('users', lives)
  await expect.poll(found(other)).toEqual([dies, lives].sort())
  await end(dies)
  await expect.poll(found(other), within).toEqual([lives])
})

test('while Consul is gone addresses stay; one that has lost everything is told again', async () => {
  const installation = randomUUID()
  const [one, other] = [open(installation), open(installation)]
  const [first, second] = [await instance(), await instance()]
  await one.register('users', first)
  await expect.poll(found(other)).toEqual([first])
  await consul.kill()
  expect(await other.lookup('users')).toEqual([first])
  // Who starts meanwhile is not held up, knows what it was given, and is known to others when Consul is back.
  const late = open(installation, staticRegistry({ users: [first] }))
  await late.register('users', second)
  expect(await found(late)()).toEqual([first, second].sort())
  await expect
    .poll(() => metrics.render())
    .toMatch(/^registry_failures_total\{operation="lookup",.*\} [1-9]/m)
  expect(await other.lookup('users')).toEqual([first])
  await consul.start()
  await expect.poll(found(other), within).toEqual([first, second].sort())
  await late.deregister('users', second)
  await expect.poll(found(other)).toEqual([first])
})

test('a Consul that is frozen holds nobody up, and is heard again', async () => {
  const installation = randomUUID()
  const [one, other] = [open(installation), open(installation)]
  const [first, second] = [await instance(), await instance()]
  await one.register('users', first)
  await expect.poll(found(other)).toEqual([first])
  process.kill(consul.pid(), 'SIGSTOP')
  try {
    await one.register('users', second)
    expect(await other.lookup('users')).toEqual([first])
    expect(await found(open(installation, staticRegistry({ users: [first] })))()).toEqual([first])
  } finally {
    process.kill(consul.pid(), 'SIGCONT')
  }
  await expect.poll(found(other), within).toEqual([first, second].sort())
})
