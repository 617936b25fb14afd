import { randomUUID } from 'node:crypto'
import { InvariantReport, platformRoutes } from '@cloudphone/contracts/api/platform-api'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { z } from 'zod'
import { findPlatformKey } from '../db/adb-key-repo.ts'
import { findDevice } from '../db/device-repo.ts'
import { type DevicesBed, openDevicesBed } from '../testing/devices-bed.ts'
import { visitPhone } from './phone-door.ts'

let bed: DevicesBed
beforeAll(async () => {
  bed = await openDevicesBed()
})
afterAll(async () => await bed?.[Symbol.asyncDispose]())

const kinds = async (id: string) => (await bed.told(id)).map(({ type }) => type)

async function backAgain(person: Parameters<DevicesBed['ask']>[0], id: string, started: number) {
  await bed.until(`device ${id} to be back`, async () => {
    const { data } = await bed.ask(person, 'GET', `/api/devices/${id}`)
    const starts = (await kinds(id)).filter((type) => type === 'device.started').length
    return data.status === 'RUNNING' && starts > started
  })
}

test('a phone that crashes is told of once, with the time of its death, and started again', async () => {
  const alice = bed.neighbours.person('member')
  const { id } = await bed.createRunning(alice)
  const { exitedAt } = await bed.host.crash(id, 'kernel panic')
  await backAgain(alice, id, 1)
  const failures = (await bed.told(id)).filter(({ type }) => type === 'device.failed')
  expect(failures).toHaveLength(1)
  expect(failures[0]?.payload).toMatchObject({ reason: 'kernel panic', failedAt: exitedAt })
  expect((await kinds(id)).slice(4)).toEqual([
    'device.failed',
    'device.status_changed',
    'device.status_changed',
    'device.started',
  ])
  expect((await bed.host.get(id)).state).toBe('running')
})

test('a phone that disappears is made again at its own port', async () => {
  const alice = bed.neighbours.person('member')
  const { id, adbPort } = await bed.createRunning(alice)
  await bed.host.destroy(id)
  await backAgain(alice, id, 1)
  const failed = (await bed.told(id)).find(({ type }) => type === 'device.failed')
  expect(failed?.payload).toMatchObject({ reason: 'the phone has disappeared' })
  expect(await bed.host.get(id)).toMatchObject({ state: 'running', adb: { port: adbPort } })
})

test('a phone that always fails is left in error after the policy’s attempts', async () => {
  const alice = bed.neighbours.person('member')
  const { id } = await bed.createRunning(alice)
  await bed.host.setPhoneFaults(id, {
    seed: 1,
    rules: [{ op: 'start', kind: 'crash', delayMs: 60, probability: 1 }],
  })
  await bed.host.crash(id, 'first')
  await bed.until('the policy to give up', async () => {
    const { rows } = await sql<{ status: string; attempts: number; due: Date | null }>`
      select status, restart_attempts as attempts, restart_at as due from devices where id = ${id}`.execute(
      bed.database.kysely,
    )
    return rows[0]?.status === 'ERROR' && rows[0].attempts === 3 && rows[0].due === null
      ? (await busy(id)) === 0
      : false
  })
  expect((await kinds(id)).filter((type) => type === 'device.failed').length).toBeLessThanOrEqual(4)
})

async function busy(id: string): Promise<number> {
  const { rows } = await sql<{ n: number }>`
    select count(*)::int as n from saga_state where subject = ${id} and ended_at is null`.execute(
    bed.database.kysely,
  )
  return rows[0]?.n ?? 0
}

test('switched off from inside is a stop, not a failure', async () => {
  const alice = bed.neighbours.person('member')
  const { id } = await bed.createRunning(alice)
  const row = (await findDevice(bed.database.kysely, id))!
  const key = (await findPlatformKey(bed.database.kysely))!
  const keys = { platformKey: async () => ({ privateKey: key.private_key, publicKey: key.public_key }) }
  const signal = AbortSignal.timeout(5000)
  // The connection dies with the phone, in whatever way.
  await visitPhone({ device: row, keys, signal }, (phone) => phone.shell('reboot -p')).catch(() => undefined)
  await bed.until('the stop', async () => {
    const { data } = await bed.ask(alice, 'GET', `/api/devices/${id}`)
    return data.status === 'STOPPED'
  })
  expect((await kinds(id)).slice(4)).toEqual(['device.stopped', 'device.status_changed'])
})

test('when the phone host is killed, its running phones are failed at their last proof of life and come back', async () => {
  const alice = bed.neighbours.person('member')
  const { id } = await bed.createRunning(alice)
  await bed.until('a proof of life', async () => {
    const { rows } = await sql<{ seen: boolean }>`
      select last_active_at > started_at as seen from devices where id = ${id}`.execute(bed.database.kysely)
    return rows[0]?.seen
  })
  await bed.hostProcess.kill()
  const killedAt = new Date()
  await bed.hostProcess.restart()
  await backAgain(alice, id, 1)
  const failed = (await bed.told(id)).find(({ type }) => type === 'device.failed')
  expect(failed?.payload).toMatchObject({ reason: 'host_lost' })
  expect(new Date(String(failed?.payload.failedAt)).getTime()).toBeLessThanOrEqual(killedAt.getTime())
})

test('a phone of ours that has no device is destroyed; one of somebody else’s is not', async () => {
  const alice = bed.neighbours.person('member')
  const { id } = await bed.createRunning(alice)
  const like = await bed.host.get(id)
  const orphan = randomUUID()
  const stranger = randomUUID()
  const make = async (phoneId: string, labels: Record<string, string>) =>
    await bed.host.create({
      id: phoneId,
      name: `phone-${phoneId}`,
      labels,
      profile: like.profile,
      adb: { host: '127.0.0.1', port: like.adb.port },
    })
  await make(stranger, { 'cloudphone.node': randomUUID() })
  await make(orphan, like.labels)
  await bed.until('the orphan to go', async () =>
    bed.host.get(orphan).then(
      () => false,
      () => true,
    ),
  )
  expect((await bed.host.get(stranger)).id).toBe(stranger)
  await bed.host.destroy(stranger)
})

test('the doctor finds everything in order, with figures and claims', async () => {
  const alice = bed.neighbours.person('member')
  const { id } = await bed.createRunning(alice)
  const { reports, claims } = await bed.scheduler.call(platformRoutes('devices').invariants)
  for (const report of z.array(InvariantReport).parse(reports)) expect(report).toMatchObject({ culprits: [] })
  expect(claims).toContainEqual({ kind: 'quota', id, detail: 'RUNNING' })
})

test('the doctor names a device whose port is held by nobody', async () => {
  const alice = bed.neighbours.person('member')
  const { id, adbPort } = await bed.createRunning(alice)
  await sql`delete from port_allocations where device_id = ${id}`.execute(bed.database.kysely)
  const { reports } = await bed.scheduler.call(platformRoutes('devices').invariants)
  const ports = reports.find(({ name }) => name.startsWith('a port'))
  expect(ports).toMatchObject({
    holds: false,
    culprits: [{ id, detail: `says adb port ${adbPort}, holds none` }],
  })
})
