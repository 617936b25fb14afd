import { createHash, randomBytes } from 'node:crypto'
import { createReadStream, openAsBlob } from 'node:fs'
import { readdir, stat, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { type AdbSession, connectAdb } from '@cloudphone/adb-client/adb-client'
import * as apps from '@cloudphone/contracts/api/apps-api'
import { ListUsage } from '@cloudphone/contracts/api/billing-api'
import * as devices from '@cloudphone/contracts/api/devices-api'
import { ListNotifications, type Notification } from '@cloudphone/contracts/api/notifications-api'
import { Doctor } from '@cloudphone/contracts/api/platform-api'
import * as scheduler from '@cloudphone/contracts/api/scheduler-api'
import { Me } from '@cloudphone/contracts/api/users-api'
import type { UserId } from '@cloudphone/contracts/id'
import { type Client, CloudphoneError } from '@cloudphone/sdk/client'
import { io } from 'socket.io-client'
import { sagaToCompletion } from '../follow.ts'
import type { Output } from '../output.ts'
import type { AdbIdentity } from './adb-identity.ts'

/** What the journey needs. */
export interface Traveller {
  readonly client: Client
  readonly identity: AdbIdentity
  readonly out: Output
  /** Where the screenshots go. */
  readonly picturesDir: string
}

/** What came of it, for `--json` and for tests. */
export interface JourneyReport {
  readonly deviceId: string
  readonly sagaId: string
  readonly accepted: { readonly ms: number }
  readonly transfer: { readonly bytes: number; readonly sha256: string }
  readonly pictures: readonly string[]
  readonly packageName: string
  readonly usage: { readonly seconds: number; readonly cost: string }
  readonly allocation: { readonly id: string; readonly fence: number; readonly released: string }
  readonly notice: string
  readonly healthy: boolean
}

const transferBytes = 20_000_000
const pollSeconds = 30

/**
 * The whole main job once: a phone of one's own, an app on it, a phone from the pool, the bill, and nothing left. When a
 * step fails, the phones that were made are deleted before its error goes on: each of them costs money while it runs.
 */
export async function travel(traveller: Traveller): Promise<JourneyReport> {
  const made = new Set<devices.Device['id']>()
  try {
    return await journey(traveller, made)
  } catch (error) {
    for (const id of made) {
      await deletePatiently(traveller, id).catch((failure: unknown) => {
        const reason = failure instanceof Error ? failure.message : String(failure)
        traveller.out.note(`   phone ${id} is left (cloudphone devices delete ${id}): ${reason}`)
      })
    }
    throw error
  }
}

async function journey(traveller: Traveller, made: Set<devices.Device['id']>): Promise<JourneyReport> {
  const { client, out } = traveller
  const me = await client.call(Me)
  out.note(`1. Signed in as ${me.email} (${me.role})`)
  const key = await client.call(devices.AddAdbKey, { body: { publicKey: traveller.identity.keys.publicKey } })
  out.note(`   adb key ${key.fingerprint} registered`)

  const { device, sagaId, ms } = await createPhone(traveller, { name: 'demo-phone', made })
  const pictures: string[] = []
  const transfer = await useAdb(traveller, device, pictures)
  const packageName = await installApp(traveller, device, pictures)
  const allocation = await usePool(traveller, me.id, made)

  out.note('7. Stopping the phone')
  await finish(traveller, devices.StopDevice, device.id)
  const usage = await closedUsage(client, device.id)
  out.note(`   metered: ${usage.seconds} s, ${usage.cost} CNY`)

  out.note('8. Deleting both phones')
  await finish(traveller, devices.DeleteDevice, device.id)
  await deletePatiently(traveller, allocation.deviceId)
  const { healthy, reports } = await client.call(Doctor)
  for (const report of reports.filter((one) => !one.holds))
    out.note(`   violated: ${report.name}: ${report.figure}`)
  out.note(
    healthy ? '   nothing is left; every invariant holds' : '   an invariant is violated: cloudphone doctor',
  )
  return {
    deviceId: device.id,
    sagaId,
    accepted: { ms },
    transfer,
    pictures,
    packageName,
    usage,
    allocation: { id: allocation.id, fence: allocation.fence, released: allocation.released },
    notice: allocation.notice,
    healthy,
  }
}

async function createPhone(
  { client, out }: Traveller,
  options: { name: string; pooled?: true; made: Set<devices.Device['id']> },
): Promise<{ device: devices.Device; sagaId: string; ms: number }> {
  const startedMs = performance.now()
  const { sagaId, device } = await client.call(devices.CreateDevice, {
    body: { name: options.name, resolution: '1080x1920', dpi: 320, ...(options.pooled && { userId: null }) },
  })
  const ms = Math.round(performance.now() - startedMs)
  options.made.add(device.id)
  out.note(
    `${options.pooled ? '6. A phone for the pool' : '2. A phone was asked for'}: accepted in ${ms} ms, ${device.status}`,
  )
  if (!options.pooled) out.note(`3. ${sagaId}`)
  await sagaToCompletion(client, sagaId, out)
  return { sagaId, ms, device: await client.call(devices.GetDevice, { params: { deviceId: device.id } }) }
}

async function useAdb(
  traveller: Traveller,
  device: devices.Device,
  pictures: string[],
): Promise<JourneyReport['transfer']> {
  const { out, identity } = traveller
  await using session = await openSession(traveller, device)
  const adb = `${identity.prefix}adb -s ${device.adbHost}:${device.adbPort}`
  out.note(`4. adb   (the same by hand:)`)
  out.note(`   ${identity.prefix}adb connect ${device.adbHost}:${device.adbPort}`)
  out.note(`   ${adb} shell getprop sys.boot_completed   -> ${await session.getProp('sys.boot_completed')}`)
  const packages = (await session.run(['pm', 'list', 'packages'])).stdout.trim().split('\n')
  out.note(`   ${adb} shell pm list packages             -> ${packages.length} packages`)
  const sha256 = await pushAndPull(session)
  out.note(`   ${adb} push big.bin /sdcard/ ; pull       -> 20 MB there and back, SHA-256 equal`)
  pictures.push(await picture(traveller, session, 'launcher'))
  out.note(`   ${adb} exec-out screencap -p > ${pictures.at(-1)}`)
  const lines = (await session.run(['logcat', '-d'])).stdout.trim().split('\n')
  out.note(`   ${adb} logcat -d                          -> ${lines.length} lines`)
  return { bytes: transferBytes, sha256 }
}

async function openSession({ identity }: Traveller, device: devices.Device): Promise<AdbSession> {
  if (device.adbHost === null || device.adbPort === null)
    throw new Error(`phone ${device.id} has no adb port`)
  return connectAdb({ host: device.adbHost, port: device.adbPort, keys: [identity.keys] })
}

async function pushAndPull(session: AdbSession): Promise<string> {
  const block = randomBytes(1_000_000)
  const sent = createHash('sha256')
  const source = Readable.from(
    (function* () {
      for (let left = transferBytes; left > 0; left -= block.length) {
        sent.update(block)
        yield block
      }
    })(),
  )
  await session.push(source, '/sdcard/big.bin')
  const got = createHash('sha256')
  for await (const part of session.pull('/sdcard/big.bin')) got.update(part)
  const sha256 = got.digest('hex')
  if (sha256 !== sent.digest('hex')) throw new Error('the file that came back from the phone is another one')
  return sha256
}

async function picture({ picturesDir }: Traveller, session: AdbSession, name: string): Promise<string> {
  const path = join(picturesDir, `cloudphone-${name}.png`)
  await writeFile(path, await session.screencap())
  return path
}

async function installApp(traveller: Traveller, device: devices.Device, pictures: string[]): Promise<string> {
  const { client, out } = traveller
  const file = await sampleApk()
  const app = await client.upload(apps.UploadApp, { name: basename(file), content: await openAsBlob(file) })
  out.note(
    `5. Uploaded ${app.label} (${app.packageName} ${app.versionName}, ${app.permissions.length} permissions)`,
  )
  let installation = await client.call(apps.InstallApp, {
    params: { appId: app.id },
    body: { deviceId: device.id },
  })
  while (installation.endedAt === null) {
    const { installationId } = installation
    installation = await client.call(apps.GetInstallation, {
      params: { installationId },
      query: { wait: pollSeconds },
    })
  }
  if (installation.status !== 'installed')
    throw new Error(`the app was not installed: ${installation.reason}`)
  await using session = await openSession(traveller, device)
  pictures.push(await picture(traveller, session, 'installed'))
  out.note(`   installed; its icon is on ${pictures.at(-1)}`)
  const own = await stat(file)
  await session.install(createReadStream(file), own.size)
  out.note('   and again by adb install: Success')
  return app.packageName
}

/** npm's io.appium.settings carries a real, signed APK. */
async function sampleApk(): Promise<string> {
  const directory = join(
    dirname(fileURLToPath(import.meta.resolve('io.appium.settings/package.json'))),
    'apks',
  )
  const name = (await readdir(directory)).find((one) => one.endsWith('.apk'))
  if (name === undefined) throw new Error(`there is no APK in ${directory}`)
  return join(directory, name)
}

interface PoolStay {
  readonly id: string
  readonly deviceId: devices.Device['id']
  readonly fence: number
  readonly released: string
  readonly notice: string
}

async function usePool(
  traveller: Traveller,
  userId: UserId,
  made: Set<devices.Device['id']>,
): Promise<PoolStay> {
  const { client, out } = traveller
  const { device } = await createPhone(traveller, { name: 'demo-pool', pooled: true, made })
  const asked = await allocate(client)
  await sagaToCompletion(client, asked.sagaId, out)
  const params = { allocationId: asked.allocation.id }
  const held = await client.call(scheduler.GetAllocation, { params })
  out.note(`   allocation ${held.status} until ${held.expiresAt}, fence ${held.fence}`)
  const { items } = await client.call(scheduler.ListUserAllocations, { params: { userId } })
  out.note(
    `   GET /api/allocations/user/...: ${items.filter((one) => one.status === 'ACTIVE').length} active`,
  )
  const phone = await client.call(devices.GetDevice, { params: { deviceId: held.deviceId } })
  const notice = await whilePushed(client, held.id, async () => {
    if (phone.id !== device.id) {
      out.note(`   the pool gave ${phone.name}, which is not the demo's to crash: it is given back`)
      await client.call(scheduler.ReleaseAllocation, { params })
      return
    }
    const session = await openSession(traveller, phone)
    out.note('   adb shell "echo c > /proc/sysrq-trigger": the phone crashes under its user')
    // It dies at once: the command's own end is not to be had.
    await session.shell('echo c > /proc/sysrq-trigger').catch(() => undefined)
    await Promise.resolve(session.close()).catch(() => undefined)
  })
  const gone = await client.call(scheduler.GetAllocation, { params })
  out.note(`   pushed: ${notice.message} / ${notice.english.message}`)
  return {
    id: held.id,
    deviceId: device.id,
    fence: held.fence,
    released: gone.status,
    notice: notice.message,
  }
}

/** The pool hears of a phone by an event, a moment after its saga has ended. */
async function allocate(client: Client) {
  return patiently(async () => {
    try {
      return await client.call(scheduler.CreateAllocation, { body: { durationMinutes: 5 } })
    } catch (error) {
      if (error instanceof CloudphoneError && error.code === 'no_device_available') return undefined
      throw error
    }
  }, 'a pooled phone to become available')
}

/** Listens for pushed notices while `act` goes on, until the one about the allocation's end has come. */
async function whilePushed(
  client: Client,
  allocationId: string,
  act: () => Promise<void>,
): Promise<Notification> {
  const socket = io(`${client.url}/notifications`, {
    transports: ['websocket'],
    auth: { token: await client.accessToken() },
    reconnection: false,
  })
  try {
    const connected = Promise.withResolvers<void>()
    const pushed = Promise.withResolvers<Notification>()
    socket.once('connect', () => connected.resolve())
    socket.once('connect_error', (error) =>
      connected.reject(new Error(`no socket for notices: ${error.message}`)),
    )
    socket.on('notification', (notice: Notification) => {
      if (notice.type === 'device_released' && notice.data.allocationId === allocationId)
        pushed.resolve(notice)
    })
    await connected.promise
    await act()
    const timeout = AbortSignal.timeout(60_000)
    timeout.addEventListener('abort', () =>
      pushed.reject(new Error('no notice of the failed phone came within 60 s')),
    )
    const notice = await pushed.promise
    const { items } = await client.call(ListNotifications)
    if (!items.some((one) => one.id === notice.id)) throw new Error('the pushed notice is not in the list')
    return notice
  } finally {
    socket.close()
  }
}

async function finish(
  { client, out }: Traveller,
  route: typeof devices.StopDevice | typeof devices.DeleteDevice,
  deviceId: devices.Device['id'],
): Promise<void> {
  const { sagaId } = await client.call(route, { params: { deviceId } })
  await sagaToCompletion(client, sagaId, out)
}

/** A phone that failed is being started again by policy; its deletion waits for that. One that is gone is deleted. */
async function deletePatiently(traveller: Traveller, id: devices.Device['id']): Promise<void> {
  await patiently(async () => {
    try {
      await finish(traveller, devices.DeleteDevice, id)
      return true
    } catch (error) {
      if (!(error instanceof CloudphoneError)) throw error
      if (['device_not_found', 'device_creation_failed'].includes(error.code)) return true
      if (['operation_in_progress', 'device_allocated'].includes(error.code)) return undefined
      throw error
    }
  }, `phone ${id} to be free for deletion`)
}

async function closedUsage(client: Client, deviceId: devices.Device['id']): Promise<JourneyReport['usage']> {
  return patiently(async () => {
    const { items } = await client.call(ListUsage, { query: { deviceId } })
    const record = items[0]
    if (record?.duration === null || record?.cost === null || record === undefined) return undefined
    return { seconds: record.duration, cost: record.cost }
  }, 'the usage record to be closed')
}

/** Asks again every quarter of a second, for a minute, until there is an answer. */
async function patiently<T>(ask: () => Promise<T | undefined>, what: string): Promise<T> {
  for (let tries = 0; tries < 240; tries += 1) {
    const answer = await ask()
    if (answer !== undefined) return answer
    await new Promise((resolve) => setTimeout(resolve, 250))
  }
  throw new Error(`waited a minute in vain for ${what}`)
}
