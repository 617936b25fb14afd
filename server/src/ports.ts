import { createServer } from 'node:net'
import { portOf } from '@cloudphone/runtime/host'
import type { AnyService } from '@cloudphone/runtime/service'

/** A port that somebody else listens on; says which service wanted it and what to do. */
class PortInUse extends Error {
  constructor(service: string, host: string, port: number) {
    super(
      `Port ${port} on ${host} (for ${service}) is in use. Stop what listens there, or choose others with --port-base.`,
    )
    this.name = 'PortInUse'
  }
}

/** Tries each port before anything is started, so that a taken one costs nothing. @throws PortInUse */
export async function checkPorts(
  services: readonly AnyService[],
  host: string,
  portBase: number,
): Promise<void> {
  for (const service of services) {
    const port = portOf(service, portBase, 0)
    if (!(await isFree(host, port))) throw new PortInUse(service.name, host, port)
  }
}

function isFree(host: string, port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') resolve(false)
      else reject(error)
    })
    probe.listen({ host, port, exclusive: true }, () => probe.close(() => resolve(true)))
  })
}
