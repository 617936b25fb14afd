import { createServer } from 'node:net'

/* Test files run beside each other, each in a process of its own: the pid keeps their ranges apart, and all lie below the
 * ports that the system hands out by itself. */

/** A range of adb ports for the platforms of this test file. */
export function adbPorts(): string {
  const first = 8000 + (process.pid % 38) * 100
  return `${first}-${first + 99}`
}

/** A port base with room for every service above it, free at this moment. */
export async function freePortBase(): Promise<number> {
  for (let turn = 0; turn < 50; turn += 1) {
    const base = 7000 + ((process.pid + turn) % 50) * 20
    const free = await Promise.all(Array.from({ length: 8 }, (_, offset) => isFree(base + offset)))
    if (free.every(Boolean)) return base
  }
  throw new Error('no eight free ports in a row between 7000 and 8000')
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen({ host: '127.0.0.1', port, exclusive: true }, () => probe.close(() => resolve(true)))
  })
}
