import { access, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { AdbSession } from '@cloudphone/adb-client/adb-client'
import { type AdbKeyPair, fingerprint, generateAdbKey } from '@cloudphone/adb-client/adb-key'
import * as apps from '@cloudphone/contracts/api/apps-api'
import { ListUsage } from '@cloudphone/contracts/api/billing-api'
import * as devices from '@cloudphone/contracts/api/devices-api'
import { ListNotifications, type Notification } from '@cloudphone/contracts/api/notifications-api'
import { Doctor } from '@cloudphone/contracts/api/platform-api'
import * as scheduler from '@cloudphone/contracts/api/scheduler-api'
import type { Client } from '@cloudphone/sdk/client'
import { io } from 'socket.io-client'
import { afterAll, beforeAll, expect, test } from 'vitest'
import {
  ask,
  createPhone,
  ended,
  newPerson,
  operate,
  type Person,
  quotaUsed,
  realApk,
  wiped,
} from '../src/door.ts'
import { adbTo, cutOff, listens, pushAndPull } from '../src/phone-use.ts'
import { colours, decodePng, difference } from '../src/picture.ts'
import { openPlatform, type TestPlatform } from '../src/platform.ts'
import { until } from '../src/until.ts'

/* The whole main job, once, in order: each test goes on where the one before has ended. */

let platform: TestPlatform
let alice: Person
let operator: Person
let keys: AdbKeyPair
let phone: devices.Device
let session: AdbSession
let app: apps.App

beforeAll(async () => {
  platform = await openPlatform()
  alice = await newPerson(platform.client)
  operator = await newPerson(platform.client, 'operator')
  keys = await generateAdbKey('alice@test')
})
afterAll(() => platform?.close())

/** Notices that are pushed to somebody while the test goes on. */
async function listenFor(client: Client) {
  const socket = io(`${client.url}/notifications`, {
    transports: ['websocket'],
    auth: { token: await client.accessToken() },
    reconnection: false,
  })
  const pushed: Notification[] = []
  socket.on('notification', (notice: Notification) => pushed.push(notice))
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', () => resolve())
    socket.once('connect_error', reject)
  })
  return { pushed, close: () => void socket.close() }
}

/** A pooled phone is known to the scheduler a moment after its saga has ended. */
async function allocate(person: Person) {
  return await until('a pooled phone to be free', async () => {
    const answer = await ask(person.client, 'POST', '/api/allocations', { body: { durationMinutes: 5 } })
    if (answer.status === 409 && answer.body.code === 'no_device_available') return undefined
    expect(answer.status).toBe(202)
    return answer.body.data as { sagaId: string; allocation: scheduler.Allocation }
  })
}

test('1. an adb key is registered', async () => {
  const key = await alice.client.call(devices.AddAdbKey, { body: { publicKey: keys.publicKey } })
  expect(key.fingerprint).toBe(fingerprint(keys.publicKey))
})

test('2. a phone is asked for and accepted at once; 3. five steps carry it to RUNNING', async () => {
  const asked = await ask(alice.client, 'POST', '/api/devices', {
    body: { name: 'Mein Händy #1', resolution: '1080x1920', dpi: 320 },
  })
  expect(asked.status).toBe(202)
  expect(asked.body.success).toBe(true)
  const { sagaId, device } = asked.body.data
  expect(sagaId).toMatch(/^device_creation-[0-9a-f-]{36}$/)
  expect(device).toMatchObject({ status: 'CREATING', userId: alice.user.id, adbPort: null })
  const saga = await ended(alice.client, sagaId)
  expect(saga).toMatchObject({
    status: 'COMPLETED',
    currentStep: 'START_DEVICE',
    stepIndex: 4,
    retryCount: 0,
  })
  expect(saga.steps.map(({ name, status }) => `${name} ${status}`)).toEqual([
    'ALLOCATE_PORTS done',
    'CREATE_PROVIDER_DEVICE done',
    'CREATE_DATABASE_RECORD done',
    'REPORT_QUOTA_USAGE done',
    'START_DEVICE done',
  ])
  expect(saga.timeline.map(({ step }) => step)).toEqual(saga.steps.map(({ name }) => name))
  expect(
    await platform.books.query(
      'select status, current_step, step_index from devices.saga_state where saga_id = $1',
      [sagaId],
    ),
  ).toEqual([{ status: 'COMPLETED', current_step: 'START_DEVICE', step_index: 4 }])
  phone = await alice.client.call(devices.GetDevice, { params: { deviceId: device.id } })
  expect(phone).toMatchObject({
    ...{ status: 'RUNNING', name: 'Mein Händy #1', adbHost: '127.0.0.1', lastError: null },
    containerName: `cloudphone-mein-ha-ndy-1-${device.id}`,
  })
  const [row] = await platform.books.query(
    'select d.container_id, d.adb_port, p.adb_port as held from devices.devices d join devices.port_allocations p on p.device_id = d.id where d.id = $1',
    [device.id],
  )
  expect(row).toEqual({ container_id: expect.any(String), adb_port: phone.adbPort, held: phone.adbPort })
  expect(await quotaUsed(alice.client, alice.user.id)).toEqual({
    devices: 1,
    cpu: 2,
    memory: 4096,
    storage: 10_240,
    sessions: 0,
  })
})

test('4. adb: shell, packages, 20 MB there and back, a screenshot, the log, an APK', async () => {
  session = await adbTo(phone, keys)
  expect(await session.getProp('sys.boot_completed')).toBe('1')
  expect((await session.run(['getprop', 'sys.boot_completed'])).stdout).toBe('1\n')
  const packages = (await session.run(['pm', 'list', 'packages'])).stdout.trim().split('\n')
  expect(packages).toContain('package:com.android.launcher3')
  expect(packages).not.toContain('package:io.appium.settings')

  const transfer = await pushAndPull(session, 20_000_000)
  expect(transfer).toEqual({ sent: transfer.sent, got: transfer.sent, pulledBytes: 20_000_000 })

  expect((await session.shell('dumpsys window | grep mCurrentFocus')).stdout).toContain(
    'com.android.launcher3',
  )
  const screen = await decodePng(await session.screencap())
  expect([screen.width, screen.height]).toEqual([1080, 1920])
  expect(colours(screen)).toBeGreaterThan(1000)
  expect((await session.run(['logcat', '-d'])).stdout).toContain('BOOT_COMPLETED')

  const apk = await realApk()
  await session.install(apk.stream(), apk.sizeBytes)
  expect((await session.run(['pm', 'list', 'packages'])).stdout).toContain('package:io.appium.settings\n')
  expect((await session.run(['pm', 'uninstall', 'io.appium.settings'])).stdout).toContain('Success')
})

test('5. an APK is uploaded, described, installed by the platform, and its icon is on the screen', async () => {
  const before = await decodePng(await session.screencap())
  const apk = await realApk()
  app = await alice.client.upload(apps.UploadApp, await apk.file())
  expect(app).toMatchObject({
    ...{
      packageName: 'io.appium.settings',
      versionName: '8.0.10',
      versionCode: 192,
      label: 'Appium Settings',
    },
    ...{ minSdk: 26, targetSdk: 35, sizeBytes: apk.sizeBytes, hasIcon: true, uploadedBy: alice.user.id },
  })
  expect(app.permissions).toContain('android.permission.INTERNET')
  const icon = await decodePng(await alice.client.bytes(apps.GetAppIcon, { params: { appId: app.id } }))
  expect(colours(icon)).toBeGreaterThan(10)

  const asked = await ask(alice.client, 'POST', `/api/apps/${app.id}/install`, {
    body: { deviceId: phone.id },
  })
  expect(asked.status).toBe(202)
  expect(asked.body.data).toMatchObject({ status: 'pending', endedAt: null, deviceId: phone.id })
  const { installationId } = asked.body.data
  const done = await alice.client.call(apps.GetInstallation, {
    params: { installationId },
    query: { wait: 30 },
  })
  expect(done).toMatchObject({ status: 'installed', reason: null })
  expect((await session.run(['pm', 'path', 'io.appium.settings'])).stdout).toMatch(
    /^package:\/data\/app\/.*base\.apk\n$/,
  )

  // Below the clock, which may have moved on: one icon with its label has come.
  const changed = difference(before, await decodePng(await session.screencap()), 560)
  expect(changed.count).toBeGreaterThan(10_000)
  expect(changed.width).toBeLessThan(300)
  expect(changed.height).toBeLessThan(300)
  const shown = await decodePng(
    await alice.client.bytes(devices.Screenshot, { params: { deviceId: phone.id } }),
  )
  expect([shown.width, shown.height]).toEqual([1080, 1920])
})

test('6. a pooled phone is given to a user, and taken back and told of when it fails', async () => {
  const mine = await generateAdbKey('operator@test')
  await operator.client.call(devices.AddAdbKey, { body: { publicKey: mine.publicKey } })
  const pooled = await createPhone(operator.client, { name: 'from the pool', userId: null })
  expect(pooled).toMatchObject({ userId: null, allocationId: null, fence: 0 })
  await expect(adbTo(pooled, keys)).rejects.toMatchObject({ code: 'unauthorized' })
  const refused = await ask(alice.client, 'GET', `/api/devices/${pooled.id}`)
  expect(refused.status).toBe(403)

  const { sagaId, allocation } = await allocate(alice)
  expect(allocation).toMatchObject({ status: 'PENDING', deviceId: pooled.id, userId: alice.user.id })
  expect((await ended(alice.client, sagaId)).status).toBe('COMPLETED')
  const params = { allocationId: allocation.id }
  const held = await alice.client.call(scheduler.GetAllocation, { params })
  expect(held).toMatchObject({ status: 'ACTIVE', fence: 1, durationMinutes: 5 })
  const seen = await alice.client.call(devices.GetDevice, { params: { deviceId: pooled.id } })
  expect(seen).toMatchObject({ allocationId: allocation.id, fence: 1, status: 'RUNNING' })
  const { items } = await alice.client.call(scheduler.ListUserAllocations, {
    params: { userId: alice.user.id },
  })
  expect(items.map(({ id, status }) => [id, status])).toEqual([[allocation.id, 'ACTIVE']])

  const hers = await adbTo(seen, keys)
  expect((await hers.run(['echo', 'mine'])).stdout).toBe('mine\n')
  const listening = await listenFor(alice.client)
  await platform.host.crash(pooled.id, 'kernel panic')
  await cutOff(hers)
  const notice = await until('the push', async () =>
    listening.pushed.find(({ type }) => type === 'device_released'),
  )
  expect(notice).toMatchObject({
    ...{ title: '设备故障', message: '设备故障：kernel panic', userId: alice.user.id },
    data: { allocationId: allocation.id, deviceId: pooled.id, reason: 'device_failed' },
  })
  listening.close()
  const stored = await alice.client.call(ListNotifications)
  expect(stored.items.filter(({ id }) => id === notice.id)).toEqual([notice])
  await until('the end of the release', async () => {
    const now = await alice.client.call(scheduler.GetAllocation, { params })
    return now.status === 'RELEASED' && now.reason === 'device_failed'
  })

  // Started again, without anything on it; nobody's now: her key opens it no more.
  const back = await wiped(operator.client, pooled.id)
  expect(back.fence).toBeGreaterThan(1)
  await expect(adbTo(back, keys)).rejects.toMatchObject({ code: 'unauthorized' })
  const usage = await until('her hold to be charged', async () => {
    const records = await alice.client.call(ListUsage, { query: { deviceId: pooled.id } })
    return records.items[0]?.endTime === null ? undefined : records.items
  })
  expect(usage).toHaveLength(1)
  expect(usage[0]).toMatchObject({ allocationId: allocation.id, userId: alice.user.id })
  expect((await operate(operator.client, devices.DeleteDevice, pooled.id)).status).toBe('COMPLETED')
})

test('a user who gives a phone back is cut off, and the next one comes in', async () => {
  const pooled = await createPhone(operator.client, { name: 'passed on', userId: null })
  const first = await allocate(alice)
  await ended(alice.client, first.sagaId)
  const hers = await adbTo(pooled, keys)
  await hers.run(['touch', '/sdcard/secret.txt'])
  expect((await hers.run(['ls', '/sdcard'])).stdout).toContain('secret')
  const params = { allocationId: first.allocation.id }
  const { sagaId } = await alice.client.call(scheduler.ReleaseAllocation, { params })
  expect((await ended(alice.client, sagaId)).status).toBe('COMPLETED')
  await cutOff(hers)

  const bob = await newPerson(platform.client)
  const his = await generateAdbKey('bob@test')
  await bob.client.call(devices.AddAdbKey, { body: { publicKey: his.publicKey } })
  await wiped(operator.client, pooled.id)
  await expect(adbTo(pooled, keys)).rejects.toMatchObject({ code: 'unauthorized' })
  const second = await allocate(bob)
  await ended(bob.client, second.sagaId)
  await using session = await adbTo(pooled, his)
  expect((await session.run(['id', '-u'])).stdout).toBe('2000\n')
  expect((await session.run(['ls', '/sdcard'])).stdout).not.toContain('secret')
  await expect(adbTo(pooled, keys)).rejects.toMatchObject({ code: 'unauthorized' })
  const now = await bob.client.call(scheduler.GetAllocation, {
    params: { allocationId: second.allocation.id },
  })
  expect(now).toMatchObject({ status: 'ACTIVE', deviceId: pooled.id })
  expect(now.fence).toBeGreaterThan(1)
  const release = await bob.client.call(scheduler.ReleaseAllocation, {
    params: { allocationId: second.allocation.id },
  })
  await ended(bob.client, release.sagaId)
  await wiped(operator.client, pooled.id)
  expect((await operate(operator.client, devices.DeleteDevice, pooled.id)).status).toBe('COMPLETED')
})

test('7. stopped, its use is metered and has a price', async () => {
  expect((await operate(alice.client, devices.StopDevice, phone.id)).status).toBe('COMPLETED')
  await cutOff(session)
  const record = await until('the record to be closed', async () => {
    const { items } = await alice.client.call(ListUsage, { query: { deviceId: phone.id } })
    expect(items).toHaveLength(1)
    return items[0]?.duration === null ? undefined : items[0]
  })
  const { duration, startTime, endTime, costMicro } = record ?? {}
  expect(duration).toBeGreaterThanOrEqual(1)
  expect(duration).toBe(Math.floor((Date.parse(endTime ?? '') - Date.parse(startTime ?? '')) / 1000))
  expect(record).toMatchObject({ priceMicroPerHour: 1_000_000, currency: 'CNY', userId: alice.user.id })
  expect(Math.abs((costMicro ?? 0) - ((duration ?? 0) * 1_000_000) / 3600)).toBeLessThanOrEqual(0.5)
  expect(Number(record?.cost)).toBeCloseTo((costMicro ?? 0) / 1e6, 6)
})

test('8. deleted, nothing is left of it, and the doctor finds every invariant kept', async () => {
  const { adbPort } = phone
  expect((await operate(alice.client, devices.DeleteDevice, phone.id)).status).toBe('COMPLETED')
  const gone = await ask(alice.client, 'GET', `/api/devices/${phone.id}`)
  expect([gone.status, gone.body.code]).toEqual([404, 'device_not_found'])
  for (const table of [
    'devices where id',
    'port_allocations where device_id',
    'node_holdings where device_id',
  ]) {
    expect(await platform.books.query(`select * from devices.${table} = $1`, [phone.id])).toEqual([])
  }
  expect(
    await platform.books.query('select phones_used, cpu_used, memory_used_mb::int from devices.nodes'),
  ).toEqual([{ phones_used: 0, cpu_used: 0, memory_used_mb: 0 }])
  expect(await quotaUsed(alice.client, alice.user.id)).toEqual({
    devices: 0,
    cpu: 0,
    memory: 0,
    storage: 0,
    sessions: 0,
  })
  expect((await platform.host.list()).phones).toEqual([])
  expect(await readdir(join(platform.dataDir, 'phones', 'phones'))).toEqual([])
  await expect(access(join(platform.dataDir, 'phones', 'forgotten', phone.id))).rejects.toThrow('ENOENT')
  await until('the trash to be emptied', async () => {
    return (await readdir(join(platform.dataDir, 'phones', 'trash'))).length === 0
  })
  expect(await listens(adbPort ?? 0)).toBe(false)

  const diagnosis = await operator.client.call(Doctor)
  expect(diagnosis.reports.filter(({ holds }) => !holds)).toEqual([])
  expect(diagnosis.healthy).toBe(true)
  expect([...new Set(diagnosis.reports.map(({ invariant }) => invariant))]).toEqual([
    1, 2, 3, 4, 5, 6, 7, 8, 9,
  ])
})
