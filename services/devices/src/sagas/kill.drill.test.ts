import { randomUUID } from 'node:crypto'
import { platformRoutes } from '@cloudphone/contracts/api/platform-api'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type DevicesBed, openDevicesBed } from '../testing/devices-bed.ts'
import type { Person } from '../testing/neighbours.ts'

/* S9: the service is killed (SIGKILL) at a named point of its own code; another takes over and everything converges. */

let bed: DevicesBed
beforeAll(async () => {
  bed = await openDevicesBed()
})
afterAll(async () => await bed?.[Symbol.asyncDispose]())

/** Asks the victim; its death before the answer is what the drill is about. */
async function askVictim(address: string, person: Person, body: unknown, key: string): Promise<void> {
  await fetch(`${address}/api/devices`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${person.token}`,
      'content-type': 'application/json',
      'idempotency-key': key,
    },
    body: JSON.stringify(body),
  }).catch(() => undefined)
}

/** The same request again, until it is no longer taken for being handled by the dead process. */
async function askAgain(person: Person, body: unknown, key: string) {
  return await bed.until('the request to be taken up', async () => {
    const answer = await bed.ask<{ sagaId: string; device: { id: string } }>(person, 'POST', '/api/devices', {
      body,
      key,
    })
    return answer.status === 202 ? answer.data : undefined
  })
}

async function everythingInOrder(): Promise<void> {
  const { reports } = await bed.scheduler.call(platformRoutes('devices').invariants)
  for (const { name, culprits } of reports) expect({ name, culprits }).toEqual({ name, culprits: [] })
  const { rows } = await bed.database.pool.query(
    "select id from devices where user_id is not null and status <> 'DELETING'",
  )
  const live = [...bed.neighbours.quota].filter(([, state]) => state !== 'released').map(([id]) => id)
  expect(live.sort()).toEqual(rows.map(({ id }) => id).sort())
}

const points = [
  ['saga.device_creation.CREATE_PROVIDER_DEVICE.after_effect', 'RUNNING'],
  ['saga.device_creation.START_DEVICE.after_effect', 'RUNNING'],
  ['saga.device_creation.CREATE_PROVIDER_DEVICE.undo.after_effect', 'gone'],
  ['saga.device_creation.ALLOCATE_PORTS.after_effect', 'RUNNING'],
  ['saga.device_creation.CREATE_PROVIDER_DEVICE.before_effect', 'RUNNING'],
  ['saga.device_creation.CREATE_DATABASE_RECORD.after_effect', 'RUNNING'],
  ['saga.device_creation.REPORT_QUOTA_USAGE.before_effect', 'RUNNING'],
  ['saga.device_creation.REPORT_QUOTA_USAGE.after_effect', 'RUNNING'],
  ['saga.device_creation.START_DEVICE.before_effect', 'RUNNING'],
  ['saga.device_creation.START_DEVICE.after_checkpoint', 'RUNNING'],
  ['saga.device_creation.CREATE_PROVIDER_DEVICE.undo.before_effect', 'gone'],
  ['saga.device_creation.ALLOCATE_PORTS.undo.before_effect', 'gone'],
  ['saga.device_creation.ALLOCATE_PORTS.undo.after_effect', 'gone'],
] as const

test.each(points)('killed at %s, the device ends %s', async (point, end) => {
  const alice = bed.neighbours.person('member')
  const [key, name] = [randomUUID(), end === 'gone' ? 'doomed' : 'spared']
  await bed.host.setFaults({
    seed: 1,
    rules: [{ op: 'create', kind: 'fail', probability: 1, match: { name: 'cloudphone-doomed-*' } }],
  })
  const victim = await bed.startVictim(`${point}=kill`)
  await askVictim(victim.address, alice, { name, resolution: '360x640' }, key)
  await victim.died
  await bed.recover()
  const { rows } = await bed.database.pool.query(
    'select saga_id, subject from saga_state where user_id = $1',
    [alice.userId],
  )
  expect(rows).toHaveLength(1)
  const saga = await bed.ended(alice, rows[0].saga_id)
  expect(saga.status).toBe(end === 'gone' ? 'COMPENSATED' : 'COMPLETED')
  const device = await bed.ask(alice, 'GET', `/api/devices/${rows[0].subject}`)
  expect(end === 'gone' ? device.status : device.data.status).toBe(end === 'gone' ? 410 : 'RUNNING')
  await everythingInOrder()
})

test('killed between the reservation and its own commit, the request tried again takes nothing twice', async () => {
  const alice = bed.neighbours.person('member')
  const [key, body] = [randomUUID(), { name: 'again', resolution: '360x640' }]
  const victim = await bed.startVictim('devices.quota_reserved=kill')
  await askVictim(victim.address, alice, body, key)
  await victim.died
  await bed.recover()
  await bed.database.pool.query('update idempotency_key set busy_until = app_now() where not answered')
  const { sagaId, device } = await askAgain(alice, body, key)
  expect((await bed.ended(alice, sagaId)).status).toBe('COMPLETED')
  expect(bed.neighbours.quota.get(device.id)).toBe('committed')
  await everythingInOrder()
})
