import { createServer } from 'node:net'

/** Those ports of a range (both ends included) on which nobody listens on 127.0.0.1 now. */
export async function freePorts({ from, to }: { from: number; to: number }): Promise<number[]> {
  const free: number[] = []
  for (let port = from; port <= to; port += 1) if (await isFree(port)) free.push(port)
  return free
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen({ host: '127.0.0.1', port, exclusive: true }, () => probe.close(() => resolve(true)))
  })
}
