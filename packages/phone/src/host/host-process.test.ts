import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openPhoneHost, type PhoneHostClient } from './phone-host-client.ts'

const MAIN = fileURLToPath(new URL('./fixture-main.ts', import.meta.url))
const ids = ['0198aaaa-0000-7000-8000-000000000001', '0198aaaa-0000-7000-8000-000000000002'] as const

let root: string
let host: PhoneHostClient
const children: ChildProcess[] = []

function launch(socketName = 'host.sock'): ChildProcess {
  const child = spawn(process.execPath, [MAIN, join(root, 'host'), join(root, 'run', socketName)])
  children.push(child)
  return child
}

/** Resolves when the process says that it listens. */
async function ready(child: ChildProcess): Promise<void> {
  const [line] = (await Promise.race([once(child.stdout!, 'data'), once(child, 'exit')])) as [Buffer]
  expect(JSON.parse(line.toString())).toMatchObject({ ready: true, pid: child.pid })
}

async function ended(child: ChildProcess): Promise<{ code: number | null; stderr: string }> {
  let stderr = ''
  child.stderr!.on('data', (chunk) => {
    stderr += chunk
  })
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, stderr }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

async function create(id: string): Promise<void> {
  const port = await freePort()
  const profile = {
    ...{ width: 360, height: 640, dpi: 160, androidVersion: '11', model: 'Pixel', cpuCores: 2 },
    ...{ memoryMb: 2048, storageMb: 4096, bootMs: 0 },
  }
  await host.create({ id, name: `cloudphone-p-${id}`, profile, adb: { host: '127.0.0.1', port } })
}

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'host-process-'))
  host = openPhoneHost({ socketPath: join(root, 'run', 'host.sock') })
})

afterEach(async () => {
  await host.close()
  for (const child of children.splice(0)) child.kill('SIGKILL')
  await rm(root, { recursive: true, force: true })
})

test('after kill -9 the phones that ran are crashed with host_lost, and the events tell all of it', async () => {
  const first = launch()
  await ready(first)
  const { hostId } = await host.info()
  await create(ids[0])
  await create(ids[1])
  await host.start(ids[0], { wait: 'boot' })
  const { seq } = await host.info()
  first.kill('SIGKILL')
  await once(first, 'exit')
  await ready(launch())
  expect(await host.info()).toMatchObject({ hostId, phones: { crashed: 1, created: 1, running: 0 } })
  expect(await host.get(ids[0])).toMatchObject({ state: 'crashed', exitReason: 'host_lost', generation: 1 })
  expect(await Array.fromAsync(host.events({ since: seq, follow: false }))).toMatchObject([
    { seq: seq + 1, type: 'phone.crashed', phoneId: ids[0], reason: 'host_lost', generation: 1 },
  ])
  expect(await host.start(ids[0], { wait: 'boot' })).toMatchObject({ state: 'running', generation: 2 })
})

test('a kill between a phone and its event is made up for', async () => {
  const first = launch()
  await ready(first)
  await create(ids[0])
  await create(ids[1])
  await host.start(ids[0], { wait: 'boot' })
  await host.stop(ids[0])
  first.kill('SIGKILL')
  await once(first, 'exit')
  // As if the host had died after each file and before the event: no stop told, no second phone told, one phone gone.
  const path = join(root, 'host', 'events.ndjson')
  const lines = (await readFile(path, 'utf8')).split('\n').filter((line) => line !== '')
  const kept = lines.filter((line) => !line.includes('phone.stopped') && !line.includes(ids[1]))
  const renumbered = kept.map((line, n) => JSON.stringify({ ...JSON.parse(line), seq: n + 1 }))
  const goneId = '0198aaaa-0000-7000-8000-000000000003'
  renumbered.push(renumbered[0]!.replaceAll(ids[0], goneId).replace('"seq":1', `"seq":${kept.length + 1}`))
  await writeFile(path, `${renumbered.join('\n')}\n`)
  await appendFile(path, '{"seq":')
  await ready(launch())
  const told = await Array.fromAsync(host.events({ since: renumbered.length, follow: false }))
  expect(told.map(({ type, phoneId, reason }) => [type, phoneId, reason]).sort()).toEqual([
    ['phone.created', ids[1], null],
    ['phone.destroyed', goneId, 'requested'],
    ['phone.stopped', ids[0], 'requested'],
  ])
})

test('two hosts on one directory, or on one socket, are refused in one line', async () => {
  await ready(launch())
  const second = await ended(launch('other.sock'))
  expect(second).toEqual({
    code: 1,
    stderr: `phone host: another phone host is running on ${join(root, 'host')}\n`,
  })
  expect(await host.info()).toMatchObject({ phones: { created: 0 } })
})

test('SIGTERM and POST /v1/shutdown stop the phones and exit with 0', async () => {
  const first = launch()
  await ready(first)
  await create(ids[0])
  await host.start(ids[0], { wait: 'boot' })
  const following = Array.fromAsync(host.events({ since: 3 }))
  first.kill('SIGTERM')
  expect((await ended(first)).code).toBe(0)
  expect((await following).map(({ type, reason }) => [type, reason])).toEqual([
    ['phone.stopped', 'host_shutdown'],
  ])
  const second = launch()
  await ready(second)
  expect(await host.get(ids[0])).toMatchObject({ state: 'stopped' })
  await host.shutdown()
  expect((await ended(second)).code).toBe(0)
})
