import { afterAll, beforeAll, expect, test } from 'vitest'
import { type DevicesBed, openDevicesBed } from './testing/devices-bed.ts'

let bed: DevicesBed
beforeAll(async () => {
  bed = await openDevicesBed()
})
afterAll(async () => await bed?.[Symbol.asyncDispose]())

test('a phone is created, runs, is stopped, started and deleted; every step is told in order', async () => {
  const alice = bed.neighbours.person('member')
  const { sagaId, device } = await bed.create(alice, { name: 'Galaxy S24 ünïcode' })
  expect(device).toMatchObject({ status: 'CREATING', userId: alice.userId, adbPort: null })
  expect(sagaId).toMatch(/^device_creation-[0-9a-f-]{36}$/)
  expect((await bed.ask(alice, 'GET', `/api/devices/${device.id}`)).status).toBe(200)
  expect(await bed.ended(alice, sagaId)).toMatchObject({
    status: 'COMPLETED',
    currentStep: 'START_DEVICE',
    stepIndex: 4,
    retryCount: 0,
    steps: [
      { name: 'ALLOCATE_PORTS', status: 'done' },
      { name: 'CREATE_PROVIDER_DEVICE', status: 'done' },
      { name: 'CREATE_DATABASE_RECORD', status: 'done' },
      { name: 'REPORT_QUOTA_USAGE', status: 'done' },
      { name: 'START_DEVICE', status: 'done' },
    ],
  })
  const { data: running } = await bed.ask(alice, 'GET', `/api/devices/${device.id}`)
  expect(running).toMatchObject({
    status: 'RUNNING',
    adbHost: '127.0.0.1',
    containerName: `cloudphone-galaxy-s24-u-ni-code-${device.id}`,
  })
  expect(await bed.host.get(device.id)).toMatchObject({ state: 'running', adb: { port: running.adbPort } })
  expect(bed.neighbours.quota.get(device.id)).toBe('committed')

  for (const [verb, status] of [
    ['stop', 'STOPPED'],
    ['start', 'RUNNING'],
  ] as const) {
    const { status: http, data } = await bed.ask<{ sagaId: string }>(
      alice,
      'POST',
      `/api/devices/${device.id}/${verb}`,
    )
    expect(http).toBe(202)
    expect(await bed.ended(alice, data.sagaId)).toMatchObject({ status: 'COMPLETED' })
    expect((await bed.ask(alice, 'GET', `/api/devices/${device.id}`)).data.status).toBe(status)
  }
  const { data: deletion } = await bed.ask<{ sagaId: string }>(alice, 'DELETE', `/api/devices/${device.id}`)
  expect(await bed.ended(alice, deletion.sagaId)).toMatchObject({ status: 'COMPLETED' })
  expect((await bed.ask(alice, 'GET', `/api/devices/${device.id}`)).status).toBe(404)
  await expect(bed.host.get(device.id)).rejects.toMatchObject({ status: 404 })
  expect(bed.neighbours.quota.get(device.id)).toBe('released')

  const told = await bed.told(device.id)
  expect(told.map(({ type, version }) => `${version} ${type}`)).toEqual([
    '1 device.creation_requested',
    '2 device.created',
    '3 device.status_changed',
    '4 device.started',
    '5 device.stopped',
    '6 device.status_changed',
    '7 device.status_changed',
    '8 device.started',
    '9 device.status_changed',
    '10 device.stopped',
    '11 device.deleted',
  ])
  expect(told[4]?.payload).toMatchObject({ reason: 'user', userId: alice.userId, allocationId: null })
  expect(told[9]?.payload).toMatchObject({ reason: 'deletion' })
})
