import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Adb, AdbSocket } from '@yume-chan/adb'
import { ReadableStream } from '@yume-chan/stream-extra'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { PhoneProfile } from '../android/android.ts'
import { openFixtureAndroid } from '../host/fixture-android.ts'
import { Adbd, type AdbdOptions } from './adbd.ts'
import { connectAdb, newKey, type TestKey } from './client-fixture.ts'
import { Command, encodePacket, MAX_PAYLOAD_BYTES, VERSION_SKIP_CHECKSUM } from './packet.ts'
import { PhoneNetwork } from './phone-network.ts'
import { parseAdbPublicKey } from './public-key.ts'

const profile: PhoneProfile = {
  id: 'p1',
  name: 'p1',
  width: 360,
  height: 640,
  dpi: 160,
  androidVersion: '11',
  model: 'Pixel; 5=x',
  cpuCores: 2,
  memoryMb: 2048,
  storageMb: 4096,
  bootMs: 0,
}

const mine = newKey()
let dir: string
let adbd: Adbd
let power: string[]
let events: { event: string; fields: Record<string, unknown> }[]
const clients: Adb[] = []

async function listen(options: Partial<AdbdOptions> = {}): Promise<Adbd> {
  const android = await openFixtureAndroid({
    profile,
    dir,
    power: (action) => void power.push(action),
    now: () => new Date(0),
  })
  return await Adbd.listen({
    host: '127.0.0.1',
    port: 0,
    android,
    network: new PhoneNetwork(),
    keys: [parseAdbPublicKey(mine.publicKey)],
    power: (action) => void power.push(action),
    log: (event, fields) => void events.push({ event, fields }),
    ...options,
  })
}

async function client(...keys: TestKey[]): Promise<Adb> {
  const adb = await connectAdb(adbd.port, keys.length === 0 ? [mine] : keys)
  clients.push(adb)
  return adb
}

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'adbd-'))
  power = []
  events = []
  adbd = await listen()
})

afterEach(async () => {
  await adbd.close()
  clients.length = 0
  await rm(dir, { recursive: true, force: true })
})

describe('connection', () => {
  test('accepts a listed key and says who it is, with the features it has', async () => {
    const { banner } = await client()
    expect(banner).toMatchObject({ product: 'fixture', model: 'Pixel_ 5_x', device: 'fixture' })
    expect(banner.features).toEqual([
      'shell_v2',
      'cmd',
      'stat_v2',
      'ls_v2',
      'fixed_push_mkdir',
      'sendrecv_v2',
    ])
  })

  test('accepts the listed one among the keys of a client', async () => {
    const adb = await client(newKey(), newKey(), mine)
    expect(await shell(adb, 'echo in')).toMatchObject({ stdout: 'in\n', exitCode: 0 })
  })

  test('keeps a stranger waiting as unauthorized until his time is over', async () => {
    await adbd.close()
    adbd = await listen({ limits: { handshakeMs: 10_000, unauthorizedMs: 200 } })
    const stranger = newKey()
    await expect(connectAdb(adbd.port, [stranger])).rejects.toThrow('closed unexpectedly')
    const { fingerprint } = parseAdbPublicKey(stranger.publicKey)
    expect(events.map(({ event, fields }) => [event, fields.key ?? fields.reason])).toEqual([
      ['adb.unauthorized', fingerprint],
      ['adb.closed', 'not authorised in time'],
    ])
  })

  test('refuses a service without authentication', async () => {
    const socket = connect(adbd.port, '127.0.0.1')
    socket.write(
      encodePacket(Command.CNXN, VERSION_SKIP_CHECKSUM, MAX_PAYLOAD_BYTES, Buffer.from('host::\0')),
    )
    await once(socket, 'data')
    socket.write(encodePacket(Command.OPEN, 1, 0, Buffer.from('shell:echo hacked\0')))
    await once(socket, 'close')
    expect(events.at(-1)).toMatchObject({
      event: 'adb.closed',
      fields: { reason: expect.stringContaining('before') },
    })
  })

  test('a signature over another token is none', async () => {
    const socket = connect(adbd.port, '127.0.0.1')
    socket.write(
      encodePacket(Command.CNXN, VERSION_SKIP_CHECKSUM, MAX_PAYLOAD_BYTES, Buffer.from('host::\0')),
    )
    const [first] = (await once(socket, 'data')) as [Buffer]
    socket.write(encodePacket(Command.AUTH, 2, 0, randomBytes(256)))
    const [second] = (await once(socket, 'data')) as [Buffer]
    expect(second.readUInt32LE(0)).toBe(Command.AUTH)
    expect(second.subarray(24)).not.toEqual(first.subarray(24))
    socket.destroy()
  })

  test('strangers cannot fill the phone up', async () => {
    const strangers = Array.from({ length: 20 }, () => connect(adbd.port, '127.0.0.1'))
    const closed = strangers.slice(16).map((socket) => once(socket, 'close'))
    await Promise.all(closed)
    for (const socket of strangers) socket.destroy()
  })

  test('cuts the connections of a key that is taken off the list, and no other', async () => {
    const other = newKey()
    adbd.setKeys([mine, other].map(({ publicKey }) => parseAdbPublicKey(publicKey)))
    const leaves = await client(mine)
    const stays = await client(other)
    const running = await leaves.subprocess.shellProtocol!.spawn('wait')
    const exited = expect(running.exited).rejects.toThrow()
    adbd.setKeys([parseAdbPublicKey(other.publicKey)])
    expect(adbd.onlineConnections).toBe(1)
    await leaves.disconnected
    await exited
    expect(await shell(stays, 'echo still')).toMatchObject({ stdout: 'still\n' })
    await expect(raceAgainstClose(mine)).rejects.toThrow()
  })

  test('a key that is listed while its owner waits lets him in when he comes back', async () => {
    const late = newKey()
    const waiting = connectAdb(adbd.port, [late])
    await until(() => events.some(({ event }) => event === 'adb.unauthorized'))
    adbd.setKeys([parseAdbPublicKey(late.publicKey)])
    await expect(waiting).rejects.toThrow('closed unexpectedly')
    expect(await shell(await client(late), 'echo in')).toMatchObject({ exitCode: 0 })
  })
})

describe('shell', () => {
  test('keeps stdout, stderr and the exit code apart', async () => {
    const adb = await client()
    expect(await shell(adb, 'echo hello there')).toEqual({ stdout: 'hello there\n', stderr: '', exitCode: 0 })
    expect(await shell(adb, 'warn 7')).toEqual({ stdout: '', stderr: '7\n', exitCode: 7 })
    expect((await shell(adb, 'nonsense')).exitCode).toBe(127)
  })

  test('carries stdin to its end, whatever its size', async () => {
    const adb = await client()
    const process = await adb.subprocess.shellProtocol!.spawn('cat')
    const sent = randomBytes(3_000_000)
    const writer = process.stdin.getWriter()
    const writing = (async () => {
      await writer.write(sent)
      await writer.close()
    })()
    const [received, code] = await Promise.all([readAll(process.stdout), process.exited, writing])
    expect(digest(received)).toBe(digest(sent))
    expect(code).toBe(0)
  })

  test('exec is raw bytes, both ways', async () => {
    const adb = await client()
    const shot = await adb.subprocess.noneProtocol.spawnWait('screencap -p')
    expect(Buffer.from(shot)).toEqual(Buffer.from('89504e470d0a1a0a', 'hex'))
    const echo = await adb.createSocket('exec:echo raw')
    expect(Buffer.from(await readAll(echo.readable)).toString()).toBe('raw\n')
  })

  test('tells a command that its client has gone', async () => {
    const adb = await client()
    const process = await adb.subprocess.shellProtocol!.spawn('wait')
    const exited = expect(process.exited).rejects.toThrow('without exit message')
    await process.kill()
    await exited
    const sync = await adb.sync()
    await untilAsync(async () => (await sync.readdir('/data')).some(({ name }) => name === 'waited'))
  })
})

describe('sync', () => {
  test('20 MB go there and back', async () => {
    const adb = await client()
    const content = randomBytes(20 * 1024 * 1024)
    const sync = await adb.sync()
    await sync.write({
      filename: '/sdcard/big.bin',
      file: chunksOf(content),
      permission: 0o640,
      mtime: 1_600_000_000,
    })
    const stat = await sync.lstat('/sdcard/big.bin')
    expect(stat).toMatchObject({ size: BigInt(content.length), mtime: 1_600_000_000n, permission: 0o640 })
    expect(digest(await readAll(sync.read('/sdcard/big.bin')))).toBe(digest(content))
    await sync.dispose()
  })

  test('lists, stats and fails in the words of Android', async () => {
    const adb = await client()
    const sync = await adb.sync()
    for (const name of ['a', 'b']) {
      await sync.write({ filename: `/data/d/${name}`, file: chunksOf(Buffer.from(name)) })
    }
    const entries = await sync.readdir('/data/d')
    expect(entries.map(({ name, size }) => [name, size]).sort()).toEqual([
      ['a', 1n],
      ['b', 1n],
    ])
    expect(await sync.isDirectory('/data/d')).toBe(true)
    await expect(sync.stat('/data/nope')).rejects.toThrow('ENOENT')
    await expect(readAll(sync.read('/data/nope'))).rejects.toThrow('No such file or directory')
    await expect(sync.readdir('/data/nope')).resolves.toEqual([])
  })

  test('a refused push says so at once and leaves the session usable', async () => {
    const adb = await client()
    const sync = await raw(adb, 'sync:')
    sync.send(request('SEND', '/system/x,33188'), data(Buffer.alloc(60_000)), data(Buffer.alloc(60_000)))
    expect((await sync.read(8)).toString('latin1', 0, 4)).toBe('FAIL')
    const text = "couldn't create file: Read-only file system"
    expect((await sync.read(text.length)).toString()).toBe(text)
    sync.send(data(Buffer.alloc(10)), frame('DONE', 1))
    sync.send(request('SEND', '/data/y,33188'), data(Buffer.from('why')), frame('DONE', 77))
    expect(await sync.read(8)).toEqual(frame('OKAY', 0))
    sync.send(request('STAT', '/data/y'))
    const stat = await sync.read(16)
    expect([stat.readUInt32LE(4), stat.readUInt32LE(8), stat.readUInt32LE(12)]).toEqual([0o100644, 3, 77])
    sync.send(request('RCV2', '/data/y'), frame('RCV2', 0))
    expect(await sync.read(19)).toEqual(Buffer.concat([data(Buffer.from('why')), frame('DONE', 0)]))
    sync.send(request('LIST', '/data'))
    const entry = await sync.read(21)
    expect([entry.toString('latin1', 0, 4), entry.readUInt32LE(16), entry.toString('latin1', 20)]).toEqual([
      'DENT',
      1,
      'y',
    ])
  })

  test('a push that is cut off leaves no file', async () => {
    const adb = await client()
    const sync = await raw(adb, 'sync:')
    sync.send(request('SEND', '/data/half,33188'), data(Buffer.from('half')))
    await sync.close()
    const again = await adb.sync()
    expect((await again.readdir('/data')).filter(({ name }) => name === 'half')).toEqual([])
  })
})

describe('other services', () => {
  test('reboot reaches the power switch, bootloader does not exist', async () => {
    const adb = await client()
    expect(await readText(adb, 'reboot:bootloader')).toContain("no 'bootloader'")
    expect(power).toEqual([])
    await adb.createSocket('reboot:')
    expect(power).toEqual(['reboot'])
  })

  test('root is refused as in a production build', async () => {
    expect(await readText(await client(), 'root:')).toBe('adbd cannot run as root in production builds\n')
  })

  test('what is not there cannot be opened', async () => {
    const adb = await client()
    for (const service of ['jdwp:1', 'tcp:8080', 'localabstract:scrcpy', 'tcpip:5555', '', 'abb:package']) {
      await expect(adb.createSocket(service), service).rejects.toThrow('open failed')
    }
  })

  test('a reverse forward carries what connects to its port inside the phone', async () => {
    const adb = await client()
    const served: AdbSocket[] = []
    const address = await adb.reverse.add('tcp:0', (socket) => void served.push(socket))
    expect(address).toMatch(/^tcp:4\d{4}$/)
    expect(await adb.reverse.list()).toMatchObject([{ localName: address }])
    const inside = await raw(adb, address)
    await until(() => served.length === 1)
    inside.send(Buffer.from('ping'))
    const reader = served[0]!.readable.getReader()
    expect(Buffer.from((await reader.read()).value!).toString()).toBe('ping')
    const writer = served[0]!.writable.getWriter()
    await writer.write(Buffer.from('pong'))
    expect((await inside.read(4)).toString()).toBe('pong')
    await adb.reverse.remove(address)
    await expect(adb.createSocket(address)).rejects.toThrow('open failed')
  })

  test('reverse forwards end with their connection', async () => {
    const first = await client()
    await first.reverse.addExternal('tcp:7000', 'tcp:1')
    await first.close()
    await until(() => adbd.onlineConnections === 0)
    const second = await client()
    expect(await second.reverse.list()).toEqual([])
    await second.reverse.addExternal('tcp:7000', 'tcp:1')
  })

  test('256 streams are the limit', async () => {
    const adb = await client()
    const open = await Promise.all(Array.from({ length: 256 }, () => adb.createSocket('shell:wait')))
    await expect(adb.createSocket('shell:wait')).rejects.toThrow('open failed')
    await open[0]!.close()
    await untilAsync(
      async () =>
        await adb.createSocket('shell:echo x').then(
          () => true,
          () => false,
        ),
    )
  })
})

async function shell(
  adb: Adb,
  command: string,
): Promise<{ stdout: string; stderr: string; exitCode: number }> {
  return await adb.subprocess.shellProtocol!.spawnWaitText(command)
}

async function raceAgainstClose(key: TestKey): Promise<Adb> {
  const connecting = connectAdb(adbd.port, [key])
  await until(() => events.some(({ event }) => event === 'adb.unauthorized'))
  await adbd.close()
  return await connecting
}

async function readText(adb: Adb, service: string): Promise<string> {
  const socket = await adb.createSocket(service)
  return Buffer.from(await readAll(socket.readable)).toString()
}

async function readAll(stream: ReadableStream<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const part of stream) parts.push(part)
  return Buffer.concat(parts)
}

function chunksOf(content: Buffer): ReadableStream<Uint8Array> {
  let at = 0
  return new ReadableStream<Uint8Array>({
    pull(controller) {
      if (at >= content.length) controller.close()
      else controller.enqueue(new Uint8Array(content.subarray(at, at + 256 * 1024)))
      at += 256 * 1024
    },
  })
}

function digest(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex')
}

function frame(id: string, value: number): Buffer {
  const header = Buffer.alloc(8)
  header.write(id, 'latin1')
  header.writeUInt32LE(value, 4)
  return header
}

function request(id: string, path: string): Buffer {
  return Buffer.concat([frame(id, Buffer.byteLength(path)), Buffer.from(path)])
}

function data(content: Buffer): Buffer {
  return Buffer.concat([frame('DATA', content.length), content])
}

/** A stream of the client with counted reads. */
async function raw(adb: Adb, service: string) {
  const socket = await adb.createSocket(service)
  const reader = socket.readable.getReader()
  const writer = socket.writable.getWriter()
  let rest = Buffer.alloc(0)
  return {
    send: (...parts: Buffer[]): void => void writer.write(new Uint8Array(Buffer.concat(parts))),
    read: async (bytes: number): Promise<Buffer> => {
      while (rest.length < bytes) {
        const { value, done } = await reader.read()
        if (done) throw new Error(`stream ended after ${rest.length} of ${bytes} bytes`)
        rest = Buffer.concat([rest, value])
      }
      const taken = rest.subarray(0, bytes)
      rest = rest.subarray(bytes)
      return taken
    },
    close: async () => await socket.close(),
  }
}

async function until(condition: () => boolean): Promise<void> {
  await untilAsync(async () => condition())
}

async function untilAsync(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setImmediate(resolve))
}
