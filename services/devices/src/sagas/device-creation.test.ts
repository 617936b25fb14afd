import { once } from 'node:events'
import { createServer } from 'node:net'
import type { FaultRule } from '@cloudphone/phone/host/host-api'
import { sql } from 'kysely'
import { afterAll, beforeAll, test } from 'vitest'
import { type DevicesBed, openDevicesBed } from '../testing/devices-bed.ts'

let bed: DevicesBed
beforeAll(async () => {
  bed = await openDevicesBed({ DEVICES_BOOT_WAIT_SECONDS: '1', DEVICES_PORT_COOLDOWN_SECONDS: '600' })
  // By name, since the tests of this file run beside each other.
  const plague = (name: string, rule: FaultRule): FaultRule => ({
    ...rule,
    match: { name: `cloudphone-${name}-*` },
  })
  await bed.host.setFaults({
    seed: 1,
    rules: [
      plague('failing', { op: 'create', kind: 'fail', probability: 1 }),
      plague('stuck', { op: 'boot', kind: 'stuck', probability: 1 }),
      plague('once-stuck', { op: 'boot', kind: 'stuck', probability: 1, times: 1 }),
      plague('slow', { op: 'create', kind: 'slow', delayMs: 2500, probability: 1, times: 1 }),
    ],
  })
})
afterAll(async () => await bed?.[Symbol.asyncDispose]())

/** What a creation that was undone must not leave behind. */
async function remains(deviceId: string) {
  const count = async (table: string, column: string) => {
    const { rows } = await sql<{ n: number }>`
      select count(*)::int as n from ${sql.table(table)} where ${sql.ref(column)} = ${deviceId}`.execute(
      bed.database.kysely,
    )
    return rows[0]?.n
  }
  const phones = await bed.host.list({ labels: { 'cloudphone.device': deviceId } })
  return {
    devices: await count('devices', 'id'),
    ports: await count('port_allocations', 'device_id'),
    rooms: await count('node_holdings', 'device_id'),
    phones: phones.phones.length,
  }
}
const nothing = { devices: 0, ports: 0, rooms: 0, phones: 0 }

test.concurrent('S7: a provider that cannot create is tried four times, then nothing is left and the user is told why', async ({
  expect,
}) => {
  const alice = bed.neighbours.person('member')
  const { sagaId, device } = await bed.create(alice, { name: 'failing' })
  const saga = await bed.ended(alice, sagaId)
  expect(saga).toMatchObject({
    status: 'COMPENSATED',
    retryCount: 3,
    currentStep: 'CREATE_PROVIDER_DEVICE',
    errorMessage: 'Docker create failed: create failed: injected fault',
  })
  expect(await remains(device.id)).toEqual(nothing)
  expect(bed.neighbours.quota.get(device.id)).toBe('released')
  const gone = await bed.ask(alice, 'GET', `/api/devices/${device.id}`)
  expect(gone).toMatchObject({
    status: 410,
    problem: { code: 'device_creation_failed', sagaId, reason: saga.errorMessage },
  })
  const stranger = bed.neighbours.person('member')
  expect((await bed.ask(stranger, 'GET', `/api/devices/${device.id}`)).status).toBe(404)
  expect(await bed.told(device.id)).toMatchObject([
    { type: 'device.creation_requested', version: 1 },
    {
      type: 'device.creation_failed',
      version: 2,
      payload: { sagaId, reason: saga.errorMessage, userId: alice.userId },
    },
  ])
  expect(saga.timeline.filter(({ step }) => step === 'CREATE_PROVIDER_DEVICE')).toMatchObject([
    { direction: 'do', attempt: 1, status: 'failed' },
    { direction: 'do', attempt: 2, status: 'failed' },
    { direction: 'do', attempt: 3, status: 'failed' },
    { direction: 'do', attempt: 4, status: 'failed' },
    { direction: 'undo', attempt: 1, status: 'done' },
  ])
})

test.concurrent('S8: when the database refuses the phone that was made, the phone and its port go', async ({
  expect,
}) => {
  const alice = bed.neighbours.person('member')
  await sql`
    create function refuse_binding() returns trigger language plpgsql as $$
    begin
      if new.external_id is not null and new.name = 'refused' then raise exception 'disk full'; end if;
      return new;
    end $$`.execute(bed.database.kysely)
  await sql`create trigger refuse_binding before update on devices for each row execute function refuse_binding()`.execute(
    bed.database.kysely,
  )
  const { sagaId, device } = await bed.create(alice, { name: 'refused' })
  expect(await bed.ended(alice, sagaId)).toMatchObject({
    status: 'COMPENSATED',
    currentStep: 'CREATE_DATABASE_RECORD',
    errorMessage: 'disk full',
  })
  expect(await remains(device.id)).toEqual(nothing)
  expect(bed.neighbours.quota.get(device.id)).toBe('released')
})

test.concurrent('a boot that gets stuck is started anew each time, then undone; device.deleted follows device.created', async ({
  expect,
}) => {
  const alice = bed.neighbours.person('member')
  const { sagaId, device } = await bed.create(alice, { name: 'stuck' })
  expect(await bed.ended(alice, sagaId)).toMatchObject({
    status: 'COMPENSATED',
    currentStep: 'START_DEVICE',
    retryCount: 3,
    errorMessage: 'Android did not boot within 1 s',
  })
  expect(await remains(device.id)).toEqual(nothing)
  expect((await bed.told(device.id)).map(({ type }) => type)).toEqual([
    'device.creation_requested',
    'device.created',
    'device.creation_failed',
    'device.deleted',
  ])
})

test.concurrent('a phone that boots at the second try is no failure', async ({ expect }) => {
  const alice = bed.neighbours.person('member')
  const { sagaId, device } = await bed.create(alice, { name: 'once-stuck' })
  expect(await bed.ended(alice, sagaId)).toMatchObject({ status: 'COMPLETED', retryCount: 1 })
  expect((await bed.ask(alice, 'GET', `/api/devices/${device.id}`)).data.status).toBe('RUNNING')
})

test.concurrent('over quota is refused before anything is begun', async ({ expect }) => {
  const alice = bed.neighbours.person('member')
  bed.neighbours.poor.add(alice.userId)
  const answer = await bed.ask(alice, 'POST', '/api/devices', { body: { name: 'one too many' } })
  expect(answer).toMatchObject({ status: 403, problem: { code: 'quota_exceeded' } })
  const { data } = await bed.ask<unknown[]>(alice, 'GET', '/api/devices')
  expect(data).toEqual([])
})

test.concurrent('the same request made again is the same phone', async ({ expect }) => {
  const alice = bed.neighbours.person('member')
  const body = { name: 'twice' }
  const first = await bed.ask<{ sagaId: string; device: { id: string } }>(alice, 'POST', '/api/devices', {
    body,
    key: 'twice-1',
  })
  // As after a crash between the commit and the answer: the key is there, its answer is not.
  await sql`update idempotency_key set answered = false, response = null, busy_until = app_now()`.execute(
    bed.database.kysely,
  )
  const again = await bed.ask<{ sagaId: string; device: { id: string } }>(alice, 'POST', '/api/devices', {
    body,
    key: 'twice-1',
  })
  expect(again.status).toBe(202)
  expect(again.data.sagaId).toBe(first.data.sagaId)
  expect(again.data.device.id).toBe(first.data.device.id)
  await bed.ended(alice, first.data.sagaId)
})

test.concurrent('pooled phones are made by operators, take no quota, and other users phones are none of a member business', async ({
  expect,
}) => {
  const operator = bed.neighbours.person('operator')
  const member = bed.neighbours.person('member', operator.tenantId)
  const pooled = await bed.createRunning(operator, { userId: null })
  expect(pooled).toMatchObject({ userId: null, status: 'RUNNING', fence: 0 })
  expect(bed.neighbours.quota.has(pooled.id)).toBe(false)
  for (const userId of [null, operator.userId]) {
    expect(await bed.ask(member, 'POST', '/api/devices', { body: { name: 'x', userId } })).toMatchObject({
      status: 403,
      problem: { code: 'forbidden' },
    })
  }
  expect(await bed.ask(member, 'GET', `/api/devices/${pooled.id}`)).toMatchObject({
    status: 403,
    problem: { code: 'not_allocated' },
  })
  const own = await bed.createRunning(operator)
  expect(await bed.ask(member, 'POST', `/api/devices/${own.id}/stop`)).toMatchObject({
    status: 403,
    problem: { code: 'device_forbidden' },
  })
})

test.concurrent('a port that a stranger listens on is given up for another', async ({ expect }) => {
  const alice = bed.neighbours.person('member')
  const { sagaId, device } = await bed.create(alice, { name: 'slow' })
  const port = await bed.until('the port', async () => {
    const { rows } = await sql<{ adb_port: number }>`
      select adb_port from port_allocations where device_id = ${device.id}`.execute(bed.database.kysely)
    return rows[0]?.adb_port
  })
  const stranger = createServer().listen(port, '127.0.0.1')
  await once(stranger, 'listening')
  try {
    expect(await bed.ended(alice, sagaId)).toMatchObject({ status: 'COMPLETED' })
    const { data } = await bed.ask(alice, 'GET', `/api/devices/${device.id}`)
    expect(data.adbPort).not.toBe(port)
    expect((await bed.host.get(device.id)).adb.port).toBe(data.adbPort)
  } finally {
    stranger.close()
  }
})
