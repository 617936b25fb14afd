import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type RabbitNode, startRabbitNode } from '@cloudphone/testing/rabbitmq'

/** A RabbitMQ of the suite's own, on the disk of the temporary folder. */
export interface Broker extends AsyncDisposable {
  readonly pid: number
  /** Its version and Erlang's. */
  readonly version: string
  /** Makes empty virtual hosts; answers the URL of each. */
  virtualHosts(...names: string[]): Promise<readonly string[]>
}

export async function openBrokerNode(): Promise<Broker> {
  const folder = await mkdtemp(join(tmpdir(), 'cloudphone-bench-rabbitmq-'))
  const node: RabbitNode = await startRabbitNode({ folder }).catch(async (error: unknown) => {
    await rm(folder, { recursive: true, force: true })
    throw error
  })
  try {
    const version = await node.control('version')
    return {
      pid: await node.pid(),
      version: version.trim(),
      virtualHosts: (...names) => node.virtualHosts(names),
      [Symbol.asyncDispose]: () => node.close(),
    }
  } catch (error) {
    await node.close()
    throw error
  }
}
