import { join } from 'node:path'
import * as devices from '@cloudphone/contracts/api/devices-api'
import { Doctor } from '@cloudphone/contracts/api/platform-api'
import * as scheduler from '@cloudphone/contracts/api/scheduler-api'
import { type RunningService, startService } from '@cloudphone/runtime/host'
import type { Client } from '@cloudphone/sdk/client'
import { type OpenPlatform, openPlatform } from '@cloudphone/server/platform/platform'
import { roster } from '@cloudphone/server/roster'
import { readSecrets } from '@cloudphone/server/secrets'
import { temporaryFolder } from '@cloudphone/testing/temporary-folder'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ask, createPhone, ended, newPerson, operate, wiped } from '../src/door.ts'
import { removeFolder } from '../src/leavings.ts'
import { adminClient, testEnv, testLog, testSettings } from '../src/platform.ts'
import { until } from '../src/until.ts'

/* Two instances of every service on one platform, in one process: none of them keeps anything to itself. */

let folder: string
let opened: OpenPlatform
/** The first and the second of each, in starting order. */
const instances: [RunningService[], RunningService[]] = [[], []]

beforeAll(async () => {
  folder = await temporaryFolder('platform-')
  const dataDir = join(folder, 'data')
  const settings = testSettings(dataDir, testEnv(dataDir))
  opened = await openPlatform(settings, await readSecrets(settings), testLog())
  for (const service of roster) {
    for (const instance of [0, 1] as const) {
      instances[instance].push(await startService(service, opened.platform, { instance }))
    }
  }
})
afterAll(async () => {
  for (const service of instances.flat().toReversed()) await service.close()
  await opened?.phoneHost?.stop()
  await opened?.close()
  await removeFolder(folder)
})

const door = (instance: 0 | 1): Promise<Client> => {
  const gateway = instances[instance].find(({ name }) => name === 'gateway')
  return adminClient(gateway?.address ?? '', join(folder, 'data'))
}

/** A whole life of a pooled phone: made through one gateway, allocated and released through the other. */
async function life(maker: Client, user: Client): Promise<void> {
  const pooled = await createPhone(maker, { userId: null })
  const given = await until('the phone to be given out', async () => {
    const answer = await ask(user, 'POST', '/api/allocations', { body: { durationMinutes: 1 } })
    return answer.status === 202
      ? (answer.body.data as { sagaId: string; allocation: scheduler.Allocation })
      : undefined
  })
  expect((await ended(maker, given.sagaId)).status).toBe('COMPLETED')
  const params = { allocationId: given.allocation.id }
  expect(await maker.call(scheduler.GetAllocation, { params })).toMatchObject({ status: 'ACTIVE' })
  const { sagaId } = await user.call(scheduler.ReleaseAllocation, { params })
  expect((await ended(maker, sagaId)).status).toBe('COMPLETED')
  await wiped(maker, given.allocation.deviceId)
  expect((await operate(maker, devices.DeleteDevice, given.allocation.deviceId)).status).toBe('COMPLETED')
  expect(given.allocation.deviceId).toBe(pooled.id)
}

async function healthy(client: Client): Promise<void> {
  const diagnosis = await until('every invariant to hold', async () => {
    const found = await client.call(Doctor)
    return found.healthy && found
  }).catch(async () => await client.call(Doctor))
  expect(diagnosis.reports.filter(({ holds }) => !holds)).toEqual([])
}

test('each instance listens for itself', () => {
  const addresses = instances.flat().map(({ address }) => address)
  expect(addresses).toHaveLength(roster.length * 2)
  expect(new Set(addresses).size).toBe(addresses.length)
})

test('phones live through any of them, many at once, each by one saga', async () => {
  const [one, other] = await Promise.all([door(0), door(1)])
  const alice = await newPerson(one)
  const made = await Promise.all(Array.from({ length: 12 }, (_, n) => createPhone(n % 2 === 0 ? one : other)))
  expect(new Set(made.map(({ adbPort }) => adbPort)).size).toBe(12)
  await life(one, other)
  await life(other, one)
  await createPhone(alice.client)
  await Promise.all(made.map(async ({ id }) => await operate(one, devices.DeleteDevice, id)))
  await healthy(other)
})

test('the same request at both gateways makes one phone', async () => {
  const [one, other] = await Promise.all([door(0), door(1)])
  const headers = { 'idempotency-key': 'the same at both' }
  const body = { name: 'once', resolution: '360x640' }
  const answers = await Promise.all(
    [one, other, one, other].map((client) => ask(client, 'POST', '/api/devices', { body, headers })),
  )
  const made = answers.filter(({ status }) => status === 202)
  expect(made.length).toBeGreaterThanOrEqual(1)
  expect(new Set(made.map((answer) => answer.body.data.device.id)).size).toBe(1)
  expect(answers.filter(({ status }) => status !== 202).map(({ body }) => body.code)).toEqual(
    Array(4 - made.length).fill('request_in_progress'),
  )
  expect((await ended(one, made[0]?.body.data.sagaId)).status).toBe('COMPLETED')
  await operate(one, devices.DeleteDevice, made[0]?.body.data.device.id)
})

test('one instance of each is closed in the middle of work; the others carry it on', async () => {
  const other = await door(1)
  const asked = await Promise.all(
    Array.from({ length: 6 }, (_, n) =>
      other.call(devices.CreateDevice, { body: { name: `moved ${n}`, resolution: '360x640', dpi: 160 } }),
    ),
  )
  for (const service of instances[0].splice(0).toReversed()) await service.close()
  for (const { sagaId } of asked) expect((await ended(other, sagaId)).status).toBe('COMPLETED')
  await life(other, other)
  await Promise.all(asked.map(async ({ device }) => await operate(other, devices.DeleteDevice, device.id)))
  await healthy(other)
})
