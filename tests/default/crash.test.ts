import { generateAdbKey } from '@cloudphone/adb-client/adb-key'
import { AddAdbKey, CreateDevice, GetDevice, ListDevices } from '@cloudphone/contracts/api/devices-api'
import { ListNotifications } from '@cloudphone/contracts/api/notifications-api'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { createPhone, ended } from '../src/door.ts'
import { atRest, carryOut } from '../src/drill.ts'
import { endNow, processesOf } from '../src/leavings.ts'
import { adbTo } from '../src/phone-use.ts'
import { type PlatformHome, platformHome } from '../src/platform-process.ts'
import { until } from '../src/until.ts'

/* S9: processes are really killed. Two named points here and the whole platform; all of them, undos too, in
 * tests/all/crash-creation.test.ts. Sagas by themselves: packages/saga/src/crash.test.ts. */

// Each starts processes of its own, and the machine may be busy.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

let home: PlatformHome
beforeAll(async () => {
  home = await platformHome()
})
afterAll(() => home?.close())

test.each([
  { point: 'saga.device_creation.CREATE_PROVIDER_DEVICE.after_effect', end: 'RUNNING' },
  { point: 'outbox.after_publish', end: 'RUNNING' },
] as const)(
  'killed at $point, the creation ends $end after the next start',
  async (drill) => {
    await carryOut(home, drill)
  },
  120_000,
)

test('the control plane is killed: phones go on, and are found again', async () => {
  const run = await home.start()
  const client = await home.client()
  const keys = await generateAdbKey('test')
  await client.call(AddAdbKey, { body: { publicKey: keys.publicKey } })
  const phone = await createPhone(client, { name: 'survivor' })
  await using session = await adbTo(phone, keys)
  expect(await run.end('SIGKILL')).toEqual({ code: null, signal: 'SIGKILL' })
  expect((await session.run(['echo', 'alive'])).stdout).toBe('alive\n')

  await home.start()
  const found = await client.call(GetDevice, { params: { deviceId: phone.id } })
  expect(found).toMatchObject({ status: 'RUNNING', startedAt: phone.startedAt, adbPort: phone.adbPort })
  expect((await session.run(['echo', 'still'])).stdout).toBe('still\n')
  expect(await home.host.get(phone.id)).toMatchObject({ state: 'running', generation: 1 })
  await atRest(home, client)
})

test('the phone host is killed: that is noticed and told, and its phones come back by policy', async () => {
  const client = await home.client()
  const before = (await home.host.list()).phones.filter(({ state }) => state === 'running')
  expect(before.length).toBeGreaterThanOrEqual(3)
  const hosts = (await processesOf(home.folder)).filter(({ command }) => /phone\/src\/main\.ts/.test(command))
  expect(hosts).toHaveLength(1)
  endNow(hosts[0]?.pid ?? 0)
  await until('every phone to be back', async () => {
    const { phones } = await home.host.list().catch(() => ({ phones: [] }))
    const rows = await Array.fromAsync(client.each(ListDevices))
    return before.every(({ id, generation }) => {
      const phone = phones.find((one) => one.id === id)
      const isUp = phone?.state === 'running' && phone.generation === generation + 1
      return isUp && rows.some((row) => row.id === id && row.status === 'RUNNING')
    })
  })
  const running = before.map(({ id }) => id)
  const { items } = await client.call(ListNotifications, { query: { limit: 100 } })
  const told = items.filter(({ type }) => type === 'device_failed').map(({ data }) => data.deviceId)
  expect(told.sort()).toEqual(running.sort())
  await atRest(home, client)
})

test('everything is killed at once, PostgreSQL and phones too, in the middle of creations: all of it ends', async () => {
  const client = await home.client()
  const asked = await Promise.all(
    Array.from({ length: 4 }, (_, n) =>
      client.call(CreateDevice, { body: { name: `power cut ${n}`, resolution: '360x640', dpi: 160 } }),
    ),
  )
  for (const { pid } of await processesOf(home.folder)) endNow(pid)
  await until('the last of them to be gone', async () => (await processesOf(home.folder)).length === 0)

  await home.start()
  for (const { sagaId, device } of asked) {
    const saga = await ended(client, sagaId)
    expect(saga.status).toBe('COMPLETED')
    expect((await client.call(GetDevice, { params: { deviceId: device.id } })).name).toMatch(/^power cut/)
  }
  await until('every phone to run again', async () => {
    const rows = await Array.fromAsync(client.each(ListDevices))
    return rows.length >= 7 && rows.every(({ status }) => status === 'RUNNING')
  })
  await atRest(home, client)
})
