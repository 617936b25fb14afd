import { type Device, StopForShutdown } from '@cloudphone/contracts/api/devices-api'
import { present } from '@cloudphone/testing/present'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type DevicesBed, openDevicesBed } from '../testing/devices-bed.ts'

let bed: DevicesBed
beforeAll(async () => {
  bed = await openDevicesBed()
  await bed.host.setFaults({
    seed: 1,
    rules: [
      { op: 'create', kind: 'slow', delayMs: 2000, probability: 1, match: { name: 'cloudphone-slow-*' } },
    ],
  })
})
afterAll(async () => await bed?.[Symbol.asyncDispose]())

test.concurrent('one lifecycle operation at a time: the second is told which saga is in its way', async ({
  expect,
}) => {
  const alice = bed.neighbours.person('member')
  const { sagaId, device } = await bed.create(alice, { name: 'slow' })
  expect(await bed.ask(alice, 'POST', `/api/devices/${device.id}/stop`)).toMatchObject({
    status: 409,
    problem: { code: 'operation_in_progress', sagaId },
  })
  await bed.ended(alice, sagaId)
})

test.concurrent('a move that the table does not have is refused with what it needs', async ({ expect }) => {
  const alice = bed.neighbours.person('member')
  const { id } = await bed.createRunning(alice)
  expect(await bed.ask(alice, 'POST', `/api/devices/${id}/start`)).toMatchObject({
    status: 409,
    problem: {
      code: 'illegal_transition',
      deviceStatus: 'RUNNING',
      operation: 'start',
      allowed: 'STOPPED or ERROR',
    },
  })
})

test.concurrent('a start that fails leaves the device stopped, with the reason, and can be asked for again', async ({
  expect,
}) => {
  const alice = bed.neighbours.person('member')
  const { id } = await bed.createRunning(alice)
  const stop = await bed.ask<{ sagaId: string }>(alice, 'POST', `/api/devices/${id}/stop`)
  await bed.ended(alice, stop.data.sagaId)
  await bed.host.setPhoneFaults(id, { seed: 1, rules: [{ op: 'start', kind: 'fail', probability: 1 }] })
  const start = await bed.ask<{ sagaId: string }>(alice, 'POST', `/api/devices/${id}/start`)
  expect(await bed.ended(alice, start.data.sagaId)).toMatchObject({ status: 'COMPENSATED' })
  expect((await bed.ask(alice, 'GET', `/api/devices/${id}`)).data).toMatchObject({
    status: 'STOPPED',
    lastError: 'start failed: injected fault',
  })
  await bed.host.setPhoneFaults(id, { seed: 1, rules: [] })
  const again = await bed.ask<{ sagaId: string }>(alice, 'POST', `/api/devices/${id}/start`)
  expect(await bed.ended(alice, again.data.sagaId)).toMatchObject({ status: 'COMPLETED' })
})

test('the platform’s shutdown stops phones and its next start brings them back', async () => {
  const alice = bed.neighbours.person('member')
  const runs = await bed.createRunning(alice)
  const off = await bed.createRunning(alice)
  await bed.ended(
    alice,
    (await bed.ask<{ sagaId: string }>(alice, 'POST', `/api/devices/${off.id}/stop`)).data.sagaId,
  )
  expect((await bed.scheduler.call(StopForShutdown)).stopped).toBeGreaterThanOrEqual(1)
  expect((await bed.host.get(runs.id)).state).toBe('stopped')
  expect((await bed.told(runs.id)).at(-2)).toMatchObject({
    type: 'device.stopped',
    payload: { reason: 'shutdown' },
  })
  await bed.running.close()
  await bed.recover()
  await bed.until('the phone to be back', async () => {
    const { data } = await bed.ask(alice, 'GET', `/api/devices/${runs.id}`)
    return data.status === 'RUNNING'
  })
  expect((await bed.host.get(runs.id)).state).toBe('running')
  expect((await bed.ask(alice, 'GET', `/api/devices/${off.id}`)).data.status).toBe('STOPPED')
})

test.concurrent('a reset erases what is on a phone and starts it again if it ran', async ({ expect }) => {
  const alice = bed.neighbours.person('member')
  const device = await bed.createRunning(alice)
  const path = `/api/devices/${device.id}`
  const reset = async () => {
    const { status, data } = await bed.ask<{ sagaId: string }>(alice, 'POST', `${path}/reset`)
    expect(status).toBe(202)
    expect(await bed.ended(alice, data.sagaId)).toMatchObject({ status: 'COMPLETED' })
    return (await bed.ask<Device>(alice, 'GET', path)).data
  }
  expect(await reset()).toMatchObject({ status: 'RUNNING', hygiene: 'clean' })
  expect((await bed.told(device.id)).map(({ type }) => type).slice(-5)).toEqual([
    ...['device.stopped', 'device.status_changed', 'device.reset', 'device.status_changed', 'device.started'],
  ])
  const stop = await bed.ask<{ sagaId: string }>(alice, 'POST', `${path}/stop`)
  await bed.ended(alice, stop.data.sagaId)
  expect(await reset()).toMatchObject({ status: 'STOPPED' })
  const others = [bed.neighbours.person('member', alice.tenantId), bed.neighbours.person('operator')]
  expect(await bed.ask(present(others[0]), 'POST', `${path}/reset`)).toMatchObject({ status: 403 })
  expect(await bed.ask(present(others[1]), 'POST', `${path}/reset`)).toMatchObject({ status: 404 })
})

test.concurrent('a wipe that fails leaves the device stopped, with the reason', async ({ expect }) => {
  const alice = bed.neighbours.person('member')
  const { id } = await bed.createRunning(alice)
  await bed.host.setPhoneFaults(id, { seed: 1, rules: [{ op: 'wipe', kind: 'partial', probability: 1 }] })
  const reset = await bed.ask<{ sagaId: string }>(alice, 'POST', `/api/devices/${id}/reset`)
  expect(await bed.ended(alice, reset.data.sagaId)).toMatchObject({ status: 'COMPENSATED' })
  expect((await bed.ask(alice, 'GET', `/api/devices/${id}`)).data).toMatchObject({
    status: 'STOPPED',
    hygiene: 'clean',
    lastError: expect.stringContaining('survived the wipe'),
  })
})

test.concurrent('a start that fails after the wipe is the restart policy’s', async ({ expect }) => {
  const alice = bed.neighbours.person('member')
  const { id } = await bed.createRunning(alice)
  await bed.host.setPhoneFaults(id, {
    seed: 1,
    rules: [{ op: 'start', kind: 'fail', probability: 1, times: 4 }],
  })
  const reset = await bed.ask<{ sagaId: string }>(alice, 'POST', `/api/devices/${id}/reset`)
  expect(await bed.ended(alice, reset.data.sagaId)).toMatchObject({ status: 'COMPENSATED' })
  await bed.until('the restart', async () => {
    const { data } = await bed.ask<Device>(alice, 'GET', `/api/devices/${id}`)
    return data.status === 'RUNNING'
  })
  expect((await bed.told(id)).map(({ type }) => type)).toContain('device.reset')
})
