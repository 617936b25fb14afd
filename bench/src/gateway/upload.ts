import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, request, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'

const MIB = 1024 ** 2
const LOOK_MS = 50

/** A service that reads whatever comes and answers how much it was. */
export async function openSink(): Promise<{ url: string; close(): Promise<void> }> {
  const server = createServer((incoming, response) => {
    let bytes = 0
    incoming.on('data', (chunk: Buffer) => {
      bytes += chunk.length
    })
    incoming.on('end', () => response.end(String(bytes)))
  })
  return listen(server)
}

async function listen(server: Server): Promise<{ url: string; close(): Promise<void> }> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: async () => {
      server.closeAllConnections()
      server.close()
    },
  }
}

/** What the door's process held in memory before an upload of this size and, at most, during it, in MiB. */
export async function measureUpload(
  door: { url: string; pid: number },
  { token, mebibytes }: { token: string; mebibytes: number },
): Promise<{ beforeMiB: number; peakMiB: number; seconds: number }> {
  const beforeMiB = await rssMiB(door.pid)
  let peakMiB = beforeMiB
  const looking = setInterval(() => {
    void rssMiB(door.pid).then((now) => {
      peakMiB = Math.max(peakMiB, now)
    })
  }, LOOK_MS)
  const startedMs = performance.now()
  try {
    const received = await upload(`${door.url}/api/apps`, token, mebibytes)
    if (received !== mebibytes * MIB) throw new Error(`${received} of ${mebibytes * MIB} bytes arrived`)
  } finally {
    clearInterval(looking)
  }
  return { beforeMiB, peakMiB, seconds: (performance.now() - startedMs) / 1000 }
}

async function upload(url: string, token: string, mebibytes: number): Promise<number> {
  const chunk = Buffer.alloc(MIB, 'x')
  const sending = request(url, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${token}`,
      'content-type': 'multipart/form-data; boundary=b',
      'content-length': mebibytes * MIB,
    },
  })
  const answered = once(sending, 'response') as Promise<[IncomingMessage]>
  for (let count = 0; count < mebibytes; count += 1) {
    if (!sending.write(chunk)) await once(sending, 'drain')
  }
  sending.end()
  const [response] = await answered
  return Number(await text(response))
}

/** VmRSS of proc_pid_status(5). */
async function rssMiB(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) / 1024
}
