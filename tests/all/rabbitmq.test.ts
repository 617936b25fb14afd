import { busContract } from '@cloudphone/bus/bus.contract'
import { afterAll, beforeAll } from 'vitest'
import { type RabbitNode, startRabbitNode } from '../src/rabbitmq.ts'

let node: RabbitNode
let unused: string[] = []
let made = 0

beforeAll(async () => {
  node = await startRabbitNode()
})
afterAll(() => node.close())

/** The URL of a virtual host that nobody has used. */
async function emptyHost(): Promise<string> {
  if (unused.length === 0) {
    const names = Array.from({ length: 12 }, () => `test ${++made}`)
    unused = [...(await node.virtualHosts(names))]
  }
  return unused.shift() ?? ''
}

busContract('RabbitMQ bus', async () => ({
  adapter: new URL('../../packages/bus/src/rabbitmq/drill-bus.ts', import.meta.url),
  settings: { url: await emptyHost() },
  close: async () => undefined,
}))
