import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { Adb } from '@yume-chan/adb'
import { ReadableStream } from '@yume-chan/stream-extra'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { connectAdb, newKey } from '../adb/client-fixture.ts'
import { openAndroid } from '../android/system.ts'
import { openPhoneHost, type PhoneHostClient } from './phone-host-client.ts'
import { type RunningHost, runHost } from './run-host.ts'

/* The whole of it: host, adbd and the real Android system, driven by an adb client. */
const ID = '0198aaaa-0000-7000-8000-000000000001'
const mine = newKey()
let root: string
let running: RunningHost
let host: PhoneHostClient
let port: number

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'real-phone-'))
  const socketPath = join(root, 'run', 'host.sock')
  running = await runHost({ dir: join(root, 'host'), socketPath, openAndroid, log: () => undefined })
  host = openPhoneHost({ socketPath })
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  port = (server.address() as AddressInfo).port
  server.close()
  await once(server, 'close')
  await host.create({
    id: ID,
    name: `cloudphone-real-${ID}`,
    profile: {
      ...{ width: 360, height: 640, dpi: 160, androidVersion: '11', model: 'Pixel', cpuCores: 2 },
      ...{ memoryMb: 2048, storageMb: 4096, bootMs: 10 },
    },
    adb: { host: '127.0.0.1', port },
    adbKeys: [mine.publicKey],
  })
  await host.start(ID, { wait: 'boot' })
})

afterEach(async () => {
  await host.close()
  await running.close()
  await rm(root, { recursive: true, force: true })
})

async function shell(adb: Adb, command: string): Promise<string> {
  const { stdout, stderr, exitCode } = await adb.subprocess.shellProtocol!.spawnWaitText(command)
  expect([stderr, exitCode], command).toEqual(['', 0])
  return stdout
}

test('a booted phone takes a streamed install, keeps it over a reboot, and shows its screen', async () => {
  const adb = await connectAdb(port, [mine])
  expect(await shell(adb, 'getprop sys.boot_completed')).toBe('1\n')
  const package_ = createRequire(import.meta.url).resolve('io.appium.settings/package.json')
  const apk = await readFile(join(dirname(package_), 'apks', 'settings_apk-debug.apk'))
  const install = await adb.subprocess.noneProtocol.spawn(`cmd package 'install' -S ${apk.length}`)
  const writer = install.stdin.getWriter()
  const [answer] = await Promise.all([Array.fromAsync(install.output), writer.write(new Uint8Array(apk))])
  expect(Buffer.concat(answer).toString()).toBe('Success\n')
  expect(await shell(adb, 'pm list packages -3')).toBe('package:io.appium.settings\n')

  const { seq } = await host.info()
  await adb.power.reboot()
  await adb.disconnected
  for await (const { type } of host.events({ since: seq })) if (type === 'phone.booted') break
  const again = await connectAdb(port, [mine])
  expect(await shell(again, 'pm list packages -3')).toBe('package:io.appium.settings\n')
  const png = Buffer.from(await again.subprocess.noneProtocol.spawnWait('screencap -p'))
  expect([png.toString('latin1', 1, 4), png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([
    'PNG',
    360,
    640,
  ])
})

test('a pushed file has its time and its mode, and is there for the shell', async () => {
  const adb = await connectAdb(port, [mine])
  const sync = await adb.sync()
  const file = ReadableStream.from([new TextEncoder().encode('pushed')])
  await sync.write({ filename: '/sdcard/Download/a.txt', file, mtime: 1_600_000_000 })
  expect(await sync.stat('/sdcard/Download/a.txt')).toMatchObject({ size: 6n, mtime: 1_600_000_000n })
  expect(await shell(adb, 'cat /sdcard/Download/a.txt')).toBe('pushed')
})
