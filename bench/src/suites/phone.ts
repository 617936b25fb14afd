import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes, randomInt, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type AdbSession, connectAdb } from '@cloudphone/adb-client/adb-client'
import { type AdbKeyPair, generateAdbKey } from '@cloudphone/adb-client/adb-key'
import { openPhoneHost, type PhoneHostClient } from '@cloudphone/phone/host/phone-host-client'
import { freePorts } from '../free-ports.ts'
import type { Figure } from '../harness/figure.ts'
import { cpuMs } from '../harness/processes.ts'
import { type Suite, type Task, UsageError } from '../harness/program.ts'
import { median, timed } from '../harness/samples.ts'

const transferBytes = 20_000_000
const transfers = 5
const screenshots = 20
const settleMs = 10_000
const idleMs = 20_000
const atOnce = 8

/** The phone host by itself: what a simulated phone costs, and how fast adb is on one. */
export const phone: Suite = {
  summary: 'idle cost of a simulated phone, and adb transfer and screenshots on one',
  options: { phones: { default: '1000', help: 'how many phones run' } },
  run: async (task) => {
    if (process.platform !== 'linux') throw new UsageError('the suite reads /proc, so it needs Linux')
    await using host = await Host.start()
    const count = task.number('phones')
    const before = await memoryKib(host.pid)
    const { ids, figures } = await fill(host.client, count, task)
    const idle = await measureIdle(host.pid, { before, count }, task)
    const used = await measureAdb(host.client, ids[0] ?? '', task)
    return { figures: [...figures, ...idle, ...used], facts: { PostgreSQL: 'not involved' } }
  },
}

class Host implements AsyncDisposable {
  readonly client: PhoneHostClient
  readonly pid: number
  readonly #child: ChildProcess
  readonly #folder: string

  private constructor(child: ChildProcess, pid: number, folder: string, client: PhoneHostClient) {
    this.#child = child
    this.pid = pid
    this.#folder = folder
    this.client = client
  }

  static async start(): Promise<Host> {
    const folder = await mkdtemp(join(tmpdir(), 'cloudphone-bench-phones-'))
    const socketPath = join(folder, 'run', 'host.sock')
    const main = fileURLToPath(import.meta.resolve('@cloudphone/phone/main'))
    // It logs a line for each thing that happens to a phone: not for a terminal.
    const log = await open(join(folder, 'log'), 'a')
    const child = spawn(process.execPath, [main, '--dir', folder, '--socket', socketPath], {
      stdio: ['ignore', 'pipe', log.fd],
    })
    await log.close()
    // It tells on standard output, in one line, that it listens.
    if (child.stdout !== null) await Promise.race([once(child.stdout, 'data'), once(child, 'exit')])
    if (child.exitCode !== null || child.pid === undefined)
      throw new Error(`the phone host did not start:\n${await readFile(join(folder, 'log'), 'utf8')}`)
    return new Host(child, child.pid, folder, openPhoneHost({ socketPath }))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exited = this.#child.exitCode === null ? once(this.#child, 'exit') : undefined
    this.#child.kill('SIGTERM')
    await exited
    await this.client.close()
    await rm(this.#folder, { recursive: true, force: true })
  }
}

async function fill(
  client: PhoneHostClient,
  count: number,
  { progress }: Task,
): Promise<{ ids: string[]; figures: Figure[] }> {
  const first = randomInt(16_000, 24_000)
  const ports = (await freePorts({ from: first, to: first + count + 500 })).slice(0, count)
  if (ports.length < count)
    throw new Error(`only ${ports.length} of ${count} ports are free from ${first} on`)
  const ids = ports.map(() => randomUUID())
  progress(`creating ${count} phones ...`)
  const created = await timed(() =>
    inParallel(ids, async (id, index) => {
      await client.create({
        ...{ id, name: `bench-${index}`, adb: { host: '127.0.0.1', port: ports[index] ?? 0 } },
        profile: {
          ...{ width: 1080, height: 1920, dpi: 320, androidVersion: '11', model: 'Bench' },
          ...{ cpuCores: 2, memoryMb: 4096, storageMb: 10_240, bootMs: 0 },
        },
      })
    }),
  )
  progress(`starting ${count} phones ...`)
  const started = await timed(() =>
    inParallel(ids, async (id) => {
      await client.start(id, { wait: 'boot' })
    }),
  )
  return {
    ids,
    figures: [
      { name: 'phones created (per s)', ours: (count * 1000) / created.ms },
      {
        name: `phones started and booted, boot of 0 ms, ${atOnce} at once (per s)`,
        ours: (count * 1000) / started.ms,
      },
    ],
  }
}

async function inParallel<T>(
  items: readonly T[],
  work: (item: T, index: number) => Promise<void>,
): Promise<void> {
  const queue = items.entries()
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      for (const [index, item] of queue) await work(item, index)
    }),
  )
}

async function measureIdle(
  pid: number,
  { before, count }: { before: number; count: number },
  { progress }: Task,
): Promise<Figure[]> {
  progress(`watching them do nothing for ${(settleMs + idleMs) / 1000} s ...`)
  await sleep(settleMs)
  const fromMs = await cpuMs(pid)
  await sleep(idleMs)
  const perSecond = ((await cpuMs(pid)) - fromMs) / (idleMs / 1000)
  return [
    {
      name: `memory of an idle phone, ${count} running (KiB RSS)`,
      ours: ((await memoryKib(pid)) - before) / count,
      wanted: { is: '<', than: 512 },
    },
    {
      name: `CPU of ${count} idle phones together (ms per s)`,
      ours: perSecond,
      wanted: { is: '<', than: 50 },
    },
  ]
}

/** Resident memory by proc_pid_status(5). */
async function memoryKib(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1])
}

async function measureAdb(client: PhoneHostClient, id: string, { progress }: Task): Promise<Figure[]> {
  const key = await generateAdbKey('bench')
  const { adb } = await client.setAdbKeys(id, [key.publicKey])
  progress('adb push, pull and screencap ...')
  await using session = await connect(adb, key)
  const content = randomBytes(1_000_000)
  const pushed: number[] = []
  const pulled: number[] = []
  const shot: number[] = []
  for (let round = 0; round < transfers; round += 1) {
    pushed.push((await timed(() => push(session, content))).ms)
    pulled.push((await timed(() => pull(session))).ms)
  }
  for (let round = 0; round < screenshots; round += 1) shot.push((await timed(() => session.screencap())).ms)
  const megabytesPerSecond = (ms: number) => transferBytes / 1000 / ms
  return [
    { name: 'adb push of 20 MB, median of 5 (MB/s)', ours: megabytesPerSecond(median(pushed)) },
    { name: 'adb pull of 20 MB, median of 5 (MB/s)', ours: megabytesPerSecond(median(pulled)) },
    { name: 'adb exec-out screencap -p, 1080x1920, median of 20 (ms)', ours: median(shot) },
  ]
}

function connect(adb: { host: string; port: number }, key: AdbKeyPair): Promise<AdbSession> {
  return connectAdb({ host: adb.host, port: adb.port, keys: [key] })
}

async function push(session: AdbSession, block: Buffer): Promise<void> {
  const blocks = Array.from({ length: transferBytes / block.length }, () => block)
  await session.push(Readable.from(blocks), '/sdcard/bench.bin')
}

async function pull(session: AdbSession): Promise<void> {
  let bytes = 0
  for await (const part of session.pull('/sdcard/bench.bin')) bytes += part.length
  if (bytes !== transferBytes) throw new Error(`${bytes} of ${transferBytes} bytes came back`)
}
