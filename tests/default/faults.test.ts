import { generateAdbKey } from '@cloudphone/adb-client/adb-key'
import { ListUsage } from '@cloudphone/contracts/api/billing-api'
import type * as devices from '@cloudphone/contracts/api/devices-api'
import { AddAdbKey, CreateDevice, GetDevice, StartDevice } from '@cloudphone/contracts/api/devices-api'
import { ListNotifications } from '@cloudphone/contracts/api/notifications-api'
import { Doctor, type SagaView } from '@cloudphone/contracts/api/platform-api'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ask, createPhone, ended, newPerson, type Person, quotaUsed } from '../src/door.ts'
import { adbTo, cutOff } from '../src/phone-use.ts'
import { openPlatform, type TestPlatform } from '../src/platform.ts'
import { until } from '../src/until.ts'

/* Bad days: what the provider, the database and the phones do to us. Side by side, since each waits for real retries. */

let platform: TestPlatform

beforeAll(async () => {
  platform = await openPlatform({
    DEVICES_BOOT_WAIT_SECONDS: '1',
    DEVICES_RESTART_ATTEMPTS: '2',
  })
  await platform.host.setFaults({
    seed: 7,
    rules: [
      { op: 'create', kind: 'fail', probability: 1, match: { name: 'cloudphone-no-container-*' } },
      { op: 'create', kind: 'fail', probability: 1, times: 2, match: { name: 'cloudphone-third-time-*' } },
      { op: 'boot', kind: 'stuck', probability: 1, match: { name: 'cloudphone-stuck-*' } },
    ],
  })
  // A database that refuses the step after the container was made.
  await platform.books.query(
    "alter table devices.devices add constraint refused check (name <> 'refused' or container_id is null)",
  )
})
afterAll(() => platform?.close())

interface Attempt {
  readonly person: Person
  readonly deviceId: devices.Device['id']
  readonly saga: SagaView
}

async function attempt(name: string): Promise<Attempt> {
  const person = await newPerson(platform.client)
  const { sagaId, device } = await person.client.call(CreateDevice, {
    body: { name, resolution: '360x640', dpi: 160 },
  })
  return { person, deviceId: device.id, saga: await ended(person.client, sagaId) }
}

/** Nothing is left of a creation that failed but the reason, and the user was told it, once. */
async function nothingLeft({ person, deviceId, saga }: Attempt): Promise<void> {
  const answer = await ask(person.client, 'GET', `/api/devices/${deviceId}`)
  expect(answer.status).toBe(410)
  expect(answer.body).toMatchObject({
    code: 'device_creation_failed',
    sagaId: saga.sagaId,
    reason: saga.errorMessage,
  })
  for (const table of [
    'devices where id',
    'port_allocations where device_id',
    'node_holdings where device_id',
  ]) {
    expect(await platform.books.query(`select * from devices.${table} = $1`, [deviceId])).toEqual([])
  }
  await expect(platform.host.get(deviceId)).rejects.toMatchObject({ status: 404 })
  await until('the quota to be given back', async () => {
    const used = await quotaUsed(person.client, person.user.id)
    return used.devices === 0 && used.cpu === 0 && used.memory === 0 && used.storage === 0
  })
  await until('the events about it to be applied', async () => {
    const rows = await platform.books.query(
      `select from devices.event_outbox e where e.aggregate_id = $1
       and (e.status <> 'published' or exists (select from bus.bus_delivery d where d.event_id = e.id))`,
      [deviceId],
    )
    return rows.length === 0
  })
  const { items } = await person.client.call(ListNotifications)
  expect(items.map(({ type, data }) => ({ type, ...data }))).toEqual([
    expect.objectContaining({
      type: 'device_creation_failed',
      deviceId,
      sagaId: saga.sagaId,
      reason: saga.errorMessage,
    }),
  ])
  const usage = await person.client.call(ListUsage)
  expect(usage.items).toEqual([])
}

const stepsOf = (saga: SagaView) => saga.steps.map(({ status }) => status)

describe.concurrent('creation', () => {
  test('S7: the provider fails: three retries, compensated, the reason kept and told', async () => {
    const made = await attempt('no container')
    expect(made.saga).toMatchObject({
      ...{ status: 'COMPENSATED', currentStep: 'CREATE_PROVIDER_DEVICE', stepIndex: 1, retryCount: 3 },
      errorMessage: expect.stringMatching(/^Docker create failed: ./),
    })
    expect(stepsOf(made.saga)).toEqual(['undone', 'failed', 'pending', 'pending', 'pending'])
    const tries = made.saga.timeline.filter(
      ({ direction, step }) => direction === 'do' && step === 'CREATE_PROVIDER_DEVICE',
    )
    expect(tries.map(({ attempt, status }) => [attempt, status])).toEqual([
      [1, 'failed'],
      [2, 'failed'],
      [3, 'failed'],
      [4, 'failed'],
    ])
    const startedMs = tries.map(({ startedAt }) => Date.parse(startedAt))
    const waits = startedMs.slice(1).map((at, index) => at - (startedMs[index] ?? 0))
    for (const [index, leastMs] of [1000, 2000, 4000].entries()) {
      expect(waits[index]).toBeGreaterThan(leastMs - 50)
      expect(waits[index]).toBeLessThan(leastMs + 3000)
    }
    await nothingLeft(made)
  })

  test('a provider that fails twice costs three seconds, not the phone', async () => {
    const { saga, person, deviceId } = await attempt('third time')
    expect(saga).toMatchObject({ status: 'COMPLETED', stepIndex: 4 })
    const tries = saga.timeline.filter(({ step }) => step === 'CREATE_PROVIDER_DEVICE')
    expect(tries.map(({ status }) => status)).toEqual([
      'failed',
      'failed',
      expect.not.stringMatching('failed'),
    ])
    expect(await person.client.call(GetDevice, { params: { deviceId } })).toMatchObject({ status: 'RUNNING' })
  })

  test('S8: the database fails after the container exists: container and ports are gone', async () => {
    const made = await attempt('refused')
    expect(made.saga).toMatchObject({
      status: 'COMPENSATED',
      currentStep: 'CREATE_DATABASE_RECORD',
      stepIndex: 2,
    })
    expect(stepsOf(made.saga).slice(0, 2)).toEqual(['undone', 'undone'])
    const events = await platform.host.list().then(({ phones }) => phones.map(({ id }) => id))
    expect(events).not.toContain(made.deviceId)
    await nothingLeft(made)
  })

  test('a boot that gets stuck ends by timeout and everything is taken back', async () => {
    const made = await attempt('stuck')
    expect(made.saga).toMatchObject({
      ...{ status: 'COMPENSATED', currentStep: 'START_DEVICE', stepIndex: 4, retryCount: 3 },
      errorMessage: expect.stringContaining('did not boot within 1 s'),
    })
    expect(stepsOf(made.saga).slice(0, 4)).toEqual(['undone', 'undone', 'undone', 'undone'])
    await nothingLeft(made)
  })
})

describe.concurrent('a running phone', () => {
  const statusOf = async ({ client }: Person, deviceId: devices.Device['id']) =>
    await client.call(GetDevice, { params: { deviceId } })

  test('that crashes is told of, billed to its end, and started again, so often and no more', async () => {
    const person = await newPerson(platform.client)
    const phone = await createPhone(person.client, { name: 'frail' })
    for (const time of [1, 2, 3]) {
      await platform.host.crash(phone.id, `panic ${time}`)
      const after = await until('the crash to be seen and answered', async () => {
        const { items } = await person.client.call(ListNotifications)
        if (!items.some(({ data }) => data.reason === `panic ${time}`)) return undefined
        const now = await statusOf(person, phone.id)
        return now.status === (time < 3 ? 'RUNNING' : 'ERROR') ? now : undefined
      })
      if (time === 3) expect(after.lastError).toBe('panic 3')
    }
    const { items } = await person.client.call(ListNotifications)
    expect(items.map(({ type, message }) => [type, message])).toEqual([
      ['device_failed', '设备故障：panic 3'],
      ['device_failed', '设备故障：panic 2'],
      ['device_failed', '设备故障：panic 1'],
    ])
    const usage = await until('three closed records', async () => {
      const records = await person.client.call(ListUsage, { query: { deviceId: phone.id } })
      return records.items.every(({ endTime }) => endTime !== null) && records.items.length === 3
        ? records.items
        : undefined
    })
    expect(usage.map(({ closedBy }) => closedBy)).toEqual(['device.failed', 'device.failed', 'device.failed'])
    const { sagaId } = await person.client.call(StartDevice, { params: { deviceId: phone.id } })
    expect((await ended(person.client, sagaId)).status).toBe('COMPLETED')
    expect((await statusOf(person, phone.id)).status).toBe('RUNNING')
  })

  test('that is switched off from inside is stopped, not failed', async () => {
    const person = await newPerson(platform.client)
    const keys = await generateAdbKey('test')
    await person.client.call(AddAdbKey, { body: { publicKey: keys.publicKey } })
    const phone = await createPhone(person.client, { name: 'tired' })
    const session = await adbTo(phone, keys)
    // The phone hangs up in the middle of this command: that is its answer.
    await Promise.race([session.run(['reboot', '-p']).catch(() => undefined), cutOff(session)])
    await until('it to be seen stopped', async () => (await statusOf(person, phone.id)).status === 'STOPPED')
    const usage = await until('the record to be closed', async () => {
      const { items } = await person.client.call(ListUsage, { query: { deviceId: phone.id } })
      return items[0]?.endTime == null ? undefined : items
    })
    expect(usage).toHaveLength(1)
    expect((await person.client.call(ListNotifications)).items).toEqual([])
  })

  test('that disappears is told of as failed', async () => {
    const person = await newPerson(platform.client)
    const phone = await createPhone(person.client, { name: 'lost' })
    await platform.host.destroy(phone.id)
    await until('the notice', async () => {
      const { items } = await person.client.call(ListNotifications)
      return items.some(({ type }) => type === 'device_failed')
    })
  })
})

test('after all of this every invariant holds', async () => {
  const diagnosis = await until('the platform to be at rest', async () => {
    const found = await platform.client.call(Doctor)
    return found.healthy ? found : undefined
  }).catch(() => platform.client.call(Doctor))
  expect(diagnosis.reports.filter(({ holds }) => !holds)).toEqual([])
})
