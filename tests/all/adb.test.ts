import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { AddAdbKey, DeleteDevice, type Device } from '@cloudphone/contracts/api/devices-api'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createPhone, newPerson, operate, type Person, realApk } from '../src/door.ts'
import { colours, decodePng, difference } from '../src/picture.ts'
import { openPlatform, type TestPlatform } from '../src/platform.ts'

/* Debian's own, unmodified adb drives a phone of the platform. */

const run = promisify(execFile)

let platform: TestPlatform
let folder: string
let env: NodeJS.ProcessEnv
let alice: Person
let phone: Device
let serial: string

/** Runs adb with a server and a home of its own; what it printed. */
async function adb(...args: string[]): Promise<Buffer> {
  const { stdout } = await run('adb', args, { env, encoding: 'buffer', maxBuffer: 64 * 1024 * 1024 })
  return stdout
}
const onPhone = (...args: string[]) => adb('-s', serial, ...args)

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'adb-'))
  await mkdir(join(folder, '.android'))
  env = {
    PATH: process.env.PATH,
    HOME: folder,
    ANDROID_ADB_SERVER_PORT: String(await freePort()),
    ADB_MDNS: '0',
  }
  const { stdout } = await run('adb', ['version'], { env }).catch(() => {
    throw new Error('adb is missing: apt-get install adb (see .ci/debian-packages)')
  })
  expect(stdout).toContain('Android Debug Bridge')
  await adb('keygen', join(folder, '.android', 'adbkey'))
  platform = await openPlatform()
  alice = await newPerson(platform.client)
  const publicKey = (await readFile(join(folder, '.android', 'adbkey.pub'), 'utf8')).trim()
  await alice.client.call(AddAdbKey, { body: { publicKey } })
  phone = await createPhone(alice.client, { name: 'real adb', resolution: '1080x1920', dpi: 320 })
  serial = `${phone.adbHost}:${phone.adbPort}`
})
afterAll(async () => {
  if (env !== undefined) await adb('kill-server').catch(() => undefined)
  await platform?.close()
  await rm(folder, { recursive: true, force: true })
})

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address() as { port: number }
  probe.close()
  return port
}

test('it connects, and the phone is a device like any other', async () => {
  expect(String(await adb('connect', serial))).toMatch(/^connected to /)
  expect(String(await adb('devices', '-l'))).toMatch(new RegExp(`^${serial}\\s+device .*model:`, 'm'))
  expect(String(await onPhone('get-state'))).toBe('device\n')
  expect(String(await onPhone('shell', 'getprop', 'sys.boot_completed'))).toBe('1\n')
  await expect(onPhone('shell', 'exit 7')).rejects.toMatchObject({ code: 7 })
})

test('20 MB go there and come back the same', async () => {
  const content = randomBytes(20_000_000)
  const [there, back] = [join(folder, 'there.bin'), join(folder, 'back.bin')]
  await writeFile(there, content)
  expect(String(await onPhone('push', there, '/sdcard/there.bin'))).toContain('1 file pushed')
  expect(String(await onPhone('pull', '/sdcard/there.bin', back))).toContain('1 file pulled')
  const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')
  expect(digest(await readFile(back))).toBe(digest(content))
  expect(String(await onPhone('shell', 'ls -l /sdcard/there.bin'))).toContain('20000000')
})

test('the screen is a PNG of the launcher, and an installed app has its icon there', async () => {
  const before = await decodePng(await onPhone('exec-out', 'screencap', '-p'))
  expect([before.width, before.height]).toEqual([1080, 1920])
  expect(colours(before)).toBeGreaterThan(1000)
  expect(String(await onPhone('shell', 'pm', 'list', 'packages'))).not.toContain('io.appium.settings')
  expect(String(await onPhone('install', (await realApk()).path))).toContain('Success')
  expect(String(await onPhone('shell', 'pm', 'list', 'packages'))).toContain('package:io.appium.settings\n')
  const after = await decodePng(await onPhone('exec-out', 'screencap', '-p'))
  expect(difference(before, after, 560).count).toBeGreaterThan(10_000)
})

test('the log can be read, and a port forwarded', async () => {
  expect(String(await onPhone('logcat', '-d'))).toContain('BOOT_COMPLETED')
  const port = String(await freePort())
  expect(String(await onPhone('forward', `tcp:${port}`, 'tcp:5555')).trim()).toMatch(/^\d*$/)
  expect(String(await adb('forward', '--list'))).toContain(`tcp:${port} tcp:5555`)
})

test('a key that is not registered is refused', async () => {
  const home = join(folder, 'stranger')
  await mkdir(join(home, '.android'), { recursive: true })
  const strange = { ...env, HOME: home, ANDROID_ADB_SERVER_PORT: String(await freePort()) }
  const { stdout, stderr } = await run('adb', ['connect', serial], { env: strange }).catch((error) => error)
  await run('adb', ['kill-server'], { env: strange })
  expect(`${stdout}${stderr}`).toContain('failed to authenticate')
})

test('when the phone is deleted, adb has lost it', async () => {
  expect((await operate(alice.client, DeleteDevice, phone.id)).status).toBe('COMPLETED')
  expect(String(await adb('devices'))).not.toMatch(new RegExp(`^${serial}\\s+device$`, 'm'))
  const said = await adb('connect', serial).then(String, (error: Error) => error.message)
  expect(said).toMatch(/failed to connect|refused/)
})
