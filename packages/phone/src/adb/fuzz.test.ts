import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { AndroidSystem } from '../android/android.ts'
import { openFixtureAndroid } from '../host/fixture-android.ts'
import { Adbd } from './adbd.ts'
import { connectAdb, newKey, signToken } from './client-fixture.ts'
import { AdbConnection, type ConnectionDaemon } from './connection.ts'
import { Command, encodePacket, MAX_PAYLOAD_BYTES, VERSION_SKIP_CHECKSUM } from './packet.ts'
import { PhoneNetwork } from './phone-network.ts'
import { parseAdbPublicKey } from './public-key.ts'

const CASES = 300
const SERVICES = [
  'shell:echo a',
  'shell,v2,raw:cat',
  'sync:',
  'exec:cat',
  'reverse:list-forward',
  'tcp:1',
  'root:',
  '',
  '\xff',
  ',,:',
]

let dir: string
let android: AndroidSystem
let adbd: Adbd
const key = newKey()

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'adb-fuzz-'))
  const profile = {
    ...{ id: 'f', name: 'f', width: 100, height: 100, dpi: 160, androidVersion: '11', model: 'F' },
    ...{ cpuCores: 1, memoryMb: 512, storageMb: 512, bootMs: 0 },
  }
  android = await openFixtureAndroid({ profile, dir, power: () => undefined, now: () => new Date(0) })
  adbd = await Adbd.listen({
    host: '127.0.0.1',
    port: 0,
    android,
    network: new PhoneNetwork(),
    keys: [parseAdbPublicKey(key.publicKey)],
    power: () => undefined,
    log: () => undefined,
  })
})

afterAll(async () => {
  await adbd.close()
  await rm(dir, { recursive: true, force: true })
})

test(`${CASES} strangers with random and mutated packets: nobody gets in, the daemon lives`, async () => {
  const random = generator(0x5eed)
  for (let n = 0; n < CASES; n += 1) {
    const socket = connect(adbd.port, '127.0.0.1')
    socket.on('error', () => socket.destroy())
    await once(socket, 'connect')
    for (const packet of packets(random, random(6) + 1)) socket.write(packet)
    expect(adbd.onlineConnections).toBe(0)
    // Half of them wait for the daemon to have read it all, half just go.
    if (random(2) === 0) socket.end()
    else socket.destroy()
    await once(socket, 'close')
  }
  const adb = await connectAdb(adbd.port, [key])
  expect((await adb.subprocess.shellProtocol!.spawnWaitText('echo alive')).stdout).toBe('alive\n')
  await adb.close()
})

test(`${CASES} authorised clients with random and mutated packets: the daemon lives`, async () => {
  const random = generator(0xfeed)
  for (let n = 0; n < CASES; n += 1) {
    const socket = await authorised()
    for (const packet of packets(random, random(12) + 1)) socket.write(packet)
    const closed = once(socket, 'close')
    if (random(2) === 0) socket.end()
    else socket.destroy()
    await closed
  }
  const adb = await connectAdb(adbd.port, [key])
  expect((await adb.subprocess.shellProtocol!.spawnWaitText('echo alive')).stdout).toBe('alive\n')
  await adb.close()
})

test('a client that does not read its answers is not read from either', async () => {
  const daemon: ConnectionDaemon = {
    limits: { handshakeMs: 60_000, unauthorizedMs: 60_000 },
    banner: () => 'device::',
    keys: () => [],
    findService: async () => undefined,
    closed: () => undefined,
    log: () => undefined,
  }
  const server = createServer((socket) => void new AdbConnection(socket, daemon)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const accepting = once(server, 'connection') as Promise<[Socket]>
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const [served] = await accepting
  // Each CNXN is answered with a token of 44 bytes.
  const flood = Buffer.concat(Array.from({ length: 5000 }, () => hello))
  while (!served.isPaused()) {
    if (client.writableLength < flood.length) client.write(flood)
    await new Promise((resolve) => setImmediate(resolve))
  }
  expect(served.writableLength).toBeLessThan(5 * 1024 * 1024)
  client.on('error', () => client.destroy())
  client.destroy()
  // Not `once` of node:events: it would reject with the reset that comes first.
  await new Promise((resolve) => served.once('close', resolve))
  server.close()
})

const hello = encodePacket(Command.CNXN, VERSION_SKIP_CHECKSUM, MAX_PAYLOAD_BYTES, Buffer.from('host::\0'))

/** An authenticated connection that takes raw bytes. */
async function authorised(): Promise<Socket> {
  const socket = connect(adbd.port, '127.0.0.1')
  socket.on('error', () => socket.destroy())
  socket.write(hello)
  const [challenge] = (await once(socket, 'data')) as [Buffer]
  socket.write(encodePacket(Command.AUTH, 2, 0, signToken(key.privateKey, challenge.subarray(24, 44))))
  const [answer] = (await once(socket, 'data')) as [Buffer]
  expect(answer.readUInt32LE(0)).toBe(Command.CNXN)
  socket.resume()
  return socket
}

/** Valid packets, valid ones with flipped bytes, headers with lies in them, and noise. */
function packets(random: (below: number) => number, count: number): Buffer[] {
  const commands = Object.values(Command)
  return Array.from({ length: count }, () => {
    const shape = random(10)
    if (shape === 0) return Buffer.from(Array.from({ length: random(200) }, () => random(256)))
    const command = commands[random(commands.length)] ?? 0
    const payload =
      command === Command.OPEN
        ? Buffer.from(`${SERVICES[random(SERVICES.length)]}\0`, 'latin1')
        : Buffer.from(Array.from({ length: random(100) }, () => random(256)))
    const packet = encodePacket(command, random(4), command === Command.OPEN ? 0 : random(4), payload)
    if (shape === 1) packet.writeUInt32LE(random(0xffffffff), 12)
    if (shape === 2) packet[random(packet.length)] = random(256)
    if (shape === 3) return packet.subarray(0, random(packet.length))
    return packet
  })
}

/** mulberry32: small, seeded, good enough to choose bytes. */
function generator(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below)
  }
}
