import { createHash, randomBytes } from 'node:crypto'
import { connectAdb } from '@cloudphone/adb-client/adb-client'
import { generateAdbKey } from '@cloudphone/adb-client/adb-key'
import { buildApk } from '@cloudphone/apk/testing/build-apk'
import type { Device } from '@cloudphone/contracts/api/devices-api'
import { AppInstallRequested } from '@cloudphone/contracts/events/app-events'
import { type AllocationId, systemIds } from '@cloudphone/contracts/id'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type DevicesBed, openDevicesBed } from '../testing/devices-bed.ts'
import type { Person } from '../testing/neighbours.ts'

let bed: DevicesBed
beforeAll(async () => {
  bed = await openDevicesBed()
})
afterAll(async () => await bed?.[Symbol.asyncDispose]())

const packageName = 'org.example.notes'

/** Publishes what the apps service would, twice: the bus may deliver again. */
async function request(
  person: Person,
  device: Device,
  apk: Buffer,
  given: { sha256?: string; allocationId?: AllocationId; fence?: number } = {},
): Promise<string> {
  const [appId, installationId] = [systemIds.next<'app'>(), systemIds.next<'installation'>()]
  bed.neighbours.apks.set(appId, apk)
  const payload = {
    installationId,
    appId,
    deviceId: device.id,
    userId: person.userId,
    packageName,
    allocationId: given.allocationId ?? null,
    fence: given.fence ?? device.fence,
    versionCode: 1,
    sizeBytes: apk.length,
    sha256: given.sha256 ?? createHash('sha256').update(apk).digest('hex'),
  }
  for (let n = 0; n < 2; n += 1) {
    await bed.town.publish(AppInstallRequested, { aggregateId: installationId, payload })
  }
  return installationId
}

const outcome = async (installationId: string) =>
  await bed.until('the outcome', async () => (await bed.told(installationId)).at(0))

test('an app arrives on the phone and is told of once', async () => {
  const alice = bed.neighbours.person('member')
  const key = await generateAdbKey('alice@laptop')
  await bed.ask(alice, 'POST', '/api/adb-keys', { body: { publicKey: key.publicKey } })
  const phone = await bed.createRunning(alice)
  const apk = await buildApk({ packageName, files: { 'assets/noise.bin': randomBytes(3_000_000) } })
  const installationId = await request(alice, phone, apk)
  expect(await outcome(installationId)).toMatchObject({
    type: 'app.install.completed',
    version: 1,
    payload: { installationId, packageName, deviceId: phone.id },
  })
  await bed.running.drain()
  expect(await bed.told(installationId)).toHaveLength(1)
  const session = await connectAdb({ host: '127.0.0.1', port: phone.adbPort!, keys: [key] })
  expect((await session.run(['pm', 'list', 'packages'])).stdout).toContain(`package:${packageName}`)
  await session.close()
})

test('what the phone refuses is told in its own words, at once', async () => {
  const alice = bed.neighbours.person('member')
  const phone = await bed.createRunning(alice)
  const installationId = await request(alice, phone, randomBytes(5000))
  const told = await outcome(installationId)
  expect(told.type).toBe('app.install.failed')
  expect(told.payload.reason).toMatch(/INSTALL_(FAILED|PARSE_FAILED)_/)
})

test('bytes that are not those of the upload never become an app', async () => {
  const alice = bed.neighbours.person('member')
  const phone = await bed.createRunning(alice)
  const installationId = await request(alice, phone, await buildApk({ packageName }), { sha256: 'beef' })
  expect(await outcome(installationId)).toMatchObject({
    type: 'app.install.failed',
    payload: { reason: expect.stringContaining('not the one that was uploaded') },
  })
})

test('an installation asked for under an allocation that has ended is refused', async () => {
  const operator = bed.neighbours.person('operator')
  const phone = await bed.createRunning(operator, { userId: null })
  const given = { allocationId: systemIds.next<'allocation'>(), fence: 1 }
  const installationId = await request(operator, phone, await buildApk({ packageName }), given)
  expect(await outcome(installationId)).toMatchObject({
    type: 'app.install.failed',
    payload: { reason: expect.stringContaining('stale_allocation') },
  })
})

test('a phone that does not run takes no app', async () => {
  const alice = bed.neighbours.person('member')
  const phone = await bed.createRunning(alice)
  const stop = await bed.ask<{ sagaId: string }>(alice, 'POST', `/api/devices/${phone.id}/stop`)
  await bed.ended(alice, stop.data.sagaId)
  const installationId = await request(alice, phone, await buildApk({ packageName }))
  expect(await outcome(installationId)).toMatchObject({
    type: 'app.install.failed',
    payload: { reason: `Device ${phone.id} is STOPPED, not RUNNING.` },
  })
})
