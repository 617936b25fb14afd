import { execFile } from 'node:child_process'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { freePorts, type ServerProcess, serverProcess } from './server-process.ts'

/** A Consul agent of its own, a server in memory: what is killed and started again knows nothing any more. */
export interface ConsulServer extends ServerProcess {
  readonly url: string
  close(): Promise<void>
}

const project = fileURLToPath(new URL('../../../', import.meta.url))

/**
 * Starts Consul on ports that were free, fetched by `scripts/fetch-consul.sh` where it is not there yet.
 * @throws Error that says what is missing.
 */
export async function startConsul(): Promise<ConsulServer> {
  const { stdout } = await promisify(execFile)(resolve(project, 'scripts/fetch-consul.sh'))
  const program = resolve(project, stdout.trim())
  const [http = 0, server = 0, lan = 0] = await freePorts(3)
  const url = `http://127.0.0.1:${http}`
  const process = serverProcess({
    ...{ name: 'Consul', program },
    args: [
      ...['agent', '-dev', '-bind', '127.0.0.1', '-client', '127.0.0.1', '-log-level', 'err'],
      ...['-http-port', String(http), '-server-port', String(server), '-serf-lan-port', String(lan)],
      ...['-serf-wan-port', '-1', '-dns-port', '-1', '-grpc-port', '-1'],
    ],
    // With a leader: without one nothing can be registered.
    isReady: async () => {
      const response = await fetch(`${url}/v1/status/leader`)
      return response.ok && (await response.text()).length > 2
    },
  })
  await process.start()
  return { ...process, url, close: () => process.kill() }
}
