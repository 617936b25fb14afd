import { randomBytes, randomUUID } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, rm, stat } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { openAndroid } from '@cloudphone/phone/android/system'
import { openPhoneHost, type PhoneHostClient } from '@cloudphone/phone/host/phone-host-client'
import { runHost } from '@cloudphone/phone/host/run-host'
import { temporaryFolder } from '@cloudphone/testing/temporary-folder'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type AdbSession, connectAdb } from './adb-client.ts'
import { type AdbKeyPair, fingerprint, generateAdbKey } from './adb-key.ts'

let folder: string
let host: PhoneHostClient
let stopHost: () => Promise<void>
let keys: AdbKeyPair
let port: number
const id = randomUUID()

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  return typeof address === 'object' ? (address?.port ?? 0) : 0
}

beforeAll(async () => {
  folder = await temporaryFolder('adb-client-')
  const socketPath = join(folder, 'run', 'host.sock')
  const running = await runHost({
    dir: join(folder, 'phones'),
    socketPath,
    openAndroid,
    log: () => undefined,
  })
  stopHost = () => running.close()
  host = openPhoneHost({ socketPath })
  keys = await generateAdbKey('test@here')
  port = await freePort()
  await host.create({
    id,
    name: `cloudphone-test-${id}`,
    labels: {},
    profile: {
      width: 480,
      height: 800,
      dpi: 160,
      androidVersion: '13',
      model: 'Test',
      cpuCores: 1,
      memoryMb: 512,
      storageMb: 512,
      bootMs: 1,
    },
    adb: { host: '127.0.0.1', port },
    adbKeys: [keys.publicKey.split(' ')[0] ?? ''],
    restart: 'no',
  })
  await host.start(id, { wait: 'boot' })
})

afterAll(async () => {
  await host.close()
  await stopHost()
  await rm(folder, { recursive: true, force: true })
})

const connect = (as: readonly AdbKeyPair[] = [keys]): Promise<AdbSession> =>
  connectAdb({ host: '127.0.0.1', port, keys: as })

describe('a key pair', () => {
  it('has the public form that adb writes: 524 bytes in base64 and a name', () => {
    const [body = '', name] = keys.publicKey.split(' ')
    expect(Buffer.from(body, 'base64')).toHaveLength(524)
    expect(name).toBe('test@here')
    expect(fingerprint(keys.publicKey)).toMatch(/^([0-9A-F]{2}:){15}[0-9A-F]{2}$/)
  })
})

describe('a session', () => {
  it('runs programs whose arguments no shell reads', async () => {
    await using session = await connect()
    const said = await session.run(['echo', '$(reboot); `id` "quoted" \'single\' *'])
    expect(said).toEqual({ stdout: '$(reboot); `id` "quoted" \'single\' *\n', stderr: '', exitCode: 0 })
  })

  it('tells exit codes and errors apart', async () => {
    await using session = await connect()
    expect(await session.shell('cat /nowhere')).toMatchObject({
      exitCode: 1,
      stdout: '',
      stderr: expect.stringContaining('No such file'),
    })
  })

  it('brings bytes there and back', async () => {
    await using session = await connect()
    const sent = randomBytes(3_000_001)
    await session.push(Readable.from([sent]), '/sdcard/a file.bin')
    expect((await buffer(session.pull('/sdcard/a file.bin'))).equals(sent)).toBe(true)
  })

  it('fails a pull of what is not there, in the phone’s words', async () => {
    await using session = await connect()
    await expect(buffer(session.pull('/sdcard/nothing'))).rejects.toThrow(/No such file/)
  })

  it('does not read more than it was allowed to', async () => {
    await using session = await connect()
    await expect(session.exec(['cat', '/dev/zero'], { limitBytes: 100_000 })).rejects.toMatchObject({
      code: 'too_large',
    })
    expect(await session.getProp('sys.boot_completed')).toBe('1')
  })

  it('installs an APK, and says what the phone said when it could not', async () => {
    await using session = await connect()
    const apks = join(dirname(fileURLToPath(import.meta.resolve('io.appium.settings/package.json'))), 'apks')
    const name = (await readdir(apks)).find((one) => one.endsWith('.apk')) ?? ''
    const path = join(apks, name)
    await session.install(createReadStream(path), (await stat(path)).size)
    expect((await session.run(['pm', 'list', 'packages', '-3'])).stdout).toContain('io.appium.settings')
    const junk = Buffer.from('this is no archive at all')
    await expect(session.install(Readable.from([junk]), junk.length)).rejects.toMatchObject({
      code: 'install_failed',
      message: expect.stringContaining('INSTALL_PARSE_FAILED'),
    })
  })

  it('is refused to a key that the phone does not know, in time', async () => {
    const stranger = await generateAdbKey('stranger')
    await expect(connect([stranger])).rejects.toMatchObject({ code: 'unauthorized' })
  })

  it('cannot be had where nothing listens', async () => {
    const nowhere = { host: '127.0.0.1', port: await freePort(), keys: [keys] }
    await expect(connectAdb(nowhere)).rejects.toMatchObject({ code: 'unreachable' })
  })

  it('ends what was asked when the phone dies', async () => {
    const session = await connect()
    const outcome = expect(session.shell('cat /dev/zero > /dev/null')).rejects.toMatchObject({
      code: 'closed',
    })
    await host.crash(id, 'test')
    await outcome
    await host.start(id, { wait: 'boot' })
  })
})
