import { AdbError, type AdbSession, connectAdb } from '@cloudphone/adb-client/adb-client'
import { type AdbKeyPair, generateAdbKey } from '@cloudphone/adb-client/adb-key'
import { type AdbKey, CheckAccess, type Device, SetHolder } from '@cloudphone/contracts/api/devices-api'
import { platformRoutes } from '@cloudphone/contracts/api/platform-api'
import { type AllocationId, systemIds, type UserId } from '@cloudphone/contracts/id'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type DevicesBed, openDevicesBed } from '../testing/devices-bed.ts'
import type { Person } from '../testing/neighbours.ts'

let bed: DevicesBed
beforeAll(async () => {
  bed = await openDevicesBed()
})
afterAll(async () => await bed?.[Symbol.asyncDispose]())

async function withKey(person: Person): Promise<AdbKeyPair> {
  const key = await generateAdbKey('somebody@laptop')
  const body = { publicKey: key.publicKey }
  expect((await bed.ask(person, 'POST', '/api/adb-keys', { body })).status).toBe(201)
  return key
}

async function setHolder(
  device: Device,
  fence: number,
  holder: { allocationId: AllocationId; userId: UserId } | null,
) {
  return await bed.scheduler.call(SetHolder, {
    params: { deviceId: device.id },
    body: { fence, allocationId: holder?.allocationId ?? null, userId: holder?.userId ?? null },
  })
}

/** Resolves when what the last holder left is gone and the phone is up again. */
const wiped = async (operator: Person, { id }: Device): Promise<void> => {
  await bed.until('the wipe', async () => {
    const { data } = await bed.ask<Device>(operator, 'GET', `/api/devices/${id}`)
    return data.hygiene === 'clean' && data.status === 'RUNNING'
  })
}

const enter = async (device: Device, key: AdbKeyPair): Promise<AdbSession> =>
  await connectAdb({ host: '127.0.0.1', port: device.adbPort!, keys: [key] })

const refused = async (device: Device, key: AdbKeyPair): Promise<boolean> =>
  await enter(device, key).then(
    async (session) => {
      await session.close()
      return false
    },
    (error: unknown) => error instanceof AdbError && error.code === 'unauthorized',
  )

test('a pooled phone lets in its holder of the moment, nobody else, and cuts the holder before', async () => {
  const operator = bed.neighbours.person('operator')
  const alice = bed.neighbours.person('member', operator.tenantId)
  const bob = bed.neighbours.person('member', operator.tenantId)
  const [aliceKey, bobKey] = [await withKey(alice), await withKey(bob)]
  const phone = await bed.createRunning(operator, { userId: null })
  expect(await refused(phone, aliceKey)).toBe(true)

  const first = { allocationId: systemIds.next<'allocation'>(), userId: alice.userId }
  expect(await setHolder(phone, 1, first)).toMatchObject({ fence: 1, allocationId: first.allocationId })
  const { claims } = await bed.scheduler.call(platformRoutes('devices').invariants)
  expect(claims).toContainEqual({ kind: 'allocation', id: phone.id, detail: first.allocationId })
  const session = await enter(phone, aliceKey)
  expect(await session.getProp('sys.boot_completed')).toBe('1')
  await session.exec(['touch', '/sdcard/secret.txt'], { limitBytes: 1000 })
  expect(await refused(phone, bobKey)).toBe(true)
  expect((await bed.ask(alice, 'GET', `/api/devices/${phone.id}`)).status).toBe(200)
  const shot = await fetch(`${bed.running.address}/api/devices/${phone.id}/screenshot`, {
    headers: { authorization: `Bearer ${alice.token}` },
  })
  expect(shot.headers.get('content-type')).toBe('image/png')
  const png = Buffer.from(await shot.arrayBuffer())
  expect([png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([360, 640])
  expect(await bed.ask(bob, 'GET', `/api/devices/${phone.id}/screenshot`)).toMatchObject({
    status: 403,
    problem: { code: 'not_allocated' },
  })
  expect(await bed.ask(operator, 'DELETE', `/api/devices/${phone.id}`)).toMatchObject({
    status: 409,
    problem: { code: 'device_allocated', allocationId: first.allocationId },
  })

  const second = { allocationId: systemIds.next<'allocation'>(), userId: bob.userId }
  await expect(setHolder(phone, 2, second)).rejects.toMatchObject({ code: 'device_not_clean', status: 409 })
  expect(await setHolder(phone, 2, null)).toMatchObject({ fence: 2, hygiene: 'soiled' })
  await expect(session.getProp('sys.boot_completed')).rejects.toThrow()
  await wiped(operator, phone)
  expect(await refused(phone, aliceKey)).toBe(true)
  await setHolder(phone, 3, second)
  const next = await enter(phone, bobKey)
  expect(String(await next.exec(['ls', '/sdcard'], { limitBytes: 1000 }))).not.toContain('secret')
  await next.close()
  const proofs = await bed.database.kysely
    .selectFrom('device_wipes')
    .select(['fence', 'reason', 'method', 'residue'])
    .where('device_id', '=', phone.id)
    .execute()
  expect(proofs).toEqual([{ fence: 2, reason: 'handover', method: 'data_erased', residue: [] }])
  const told = (await bed.told(phone.id)).map(({ type }) => type)
  expect(told.slice(-5)).toEqual([
    ...['device.stopped', 'device.status_changed', 'device.reset', 'device.status_changed', 'device.started'],
  ])
  await expect(setHolder(phone, 1, first)).rejects.toMatchObject({ code: 'stale_allocation', status: 409 })
  await expect(setHolder(phone, 3, first)).rejects.toMatchObject({ code: 'stale_allocation' })
  expect(await setHolder(phone, 3, second)).toMatchObject({ fence: 3, allocationId: second.allocationId })

  await setHolder(phone, 4, null)
  await wiped(operator, phone)
  expect(await refused(phone, bobKey)).toBe(true)
  const asker = { userId: bob.userId, tenantId: operator.tenantId }
  await expect(
    bed.scheduler.call(CheckAccess, { params: { deviceId: phone.id }, query: { ...asker, any: 'false' } }),
  ).rejects.toMatchObject({ code: 'not_allocated', status: 403 })
})

test('a phone that cannot be wiped is nobody’s until an operator has reset it', async () => {
  const operator = bed.neighbours.person('operator')
  const phone = await bed.createRunning(operator, { userId: null })
  const holder = { allocationId: systemIds.next<'allocation'>(), userId: operator.userId }
  await setHolder(phone, 1, holder)
  await bed.host.setPhoneFaults(phone.id, {
    seed: 1,
    rules: [{ op: 'wipe', kind: 'partial', probability: 1 }],
  })
  await setHolder(phone, 2, null)
  await bed.until('the quarantine', async () => {
    const { data } = await bed.ask<Device>(operator, 'GET', `/api/devices/${phone.id}`)
    return data.hygiene === 'quarantined'
  })
  const failed = (await bed.told(phone.id)).at(-1)
  expect(failed).toMatchObject({ type: 'device.reset_failed', payload: { fence: 2, status: 'STOPPED' } })
  expect(failed?.payload.reason).toMatch(/survived the wipe/)
  const start = await bed.ask<{ sagaId: string }>(operator, 'POST', `/api/devices/${phone.id}/start`)
  await bed.ended(operator, start.data.sagaId)
  await expect(setHolder(phone, 3, holder)).rejects.toMatchObject({ code: 'device_not_clean', status: 409 })
  await bed.host.setPhoneFaults(phone.id, { seed: 1, rules: [] })
  const reset = await bed.ask<{ sagaId: string }>(operator, 'POST', `/api/devices/${phone.id}/reset`)
  expect(reset.status).toBe(202)
  await bed.ended(operator, reset.data.sagaId)
  const { data } = await bed.ask<Device>(operator, 'GET', `/api/devices/${phone.id}`)
  expect(data).toMatchObject({ hygiene: 'clean', status: 'RUNNING' })
})

test('what became of a held phone is told with the allocation and fence of that moment', async () => {
  const operator = bed.neighbours.person('operator')
  const phone = await bed.createRunning(operator, { userId: null })
  const holder = { allocationId: systemIds.next<'allocation'>(), userId: operator.userId }
  await setHolder(phone, 7, holder)
  await bed.host.crash(phone.id, 'kernel panic')
  const failed = await bed.until('device.failed', async () =>
    (await bed.told(phone.id)).find(({ type }) => type === 'device.failed'),
  )
  expect(failed.payload).toMatchObject({ allocationId: holder.allocationId, fence: 7, userId: null })
})

test('a holder is not given to a phone that does not run, nor to one with an owner', async () => {
  const operator = bed.neighbours.person('operator')
  const holder = { allocationId: systemIds.next<'allocation'>(), userId: operator.userId }
  const own = await bed.createRunning(operator)
  await expect(setHolder(own, 1, holder)).rejects.toMatchObject({ code: 'device_not_pooled' })
  const phone = await bed.createRunning(operator, { userId: null })
  const stop = await bed.ask<{ sagaId: string }>(operator, 'POST', `/api/devices/${phone.id}/stop`)
  await bed.ended(operator, stop.data.sagaId)
  await expect(setHolder(phone, 1, holder)).rejects.toMatchObject({ code: 'device_not_running' })
})

test('keys that a crash left unapplied are applied by the repair loop', async () => {
  const alice = bed.neighbours.person('member')
  const phone = await bed.createRunning(alice)
  const key = await generateAdbKey('alice@laptop')
  // As the row looks when a process dies between its commit and the phone.
  await sql`
    insert into adb_keys (id, user_id, public_key, label, fingerprint)
    values (${systemIds.next()}, ${alice.userId}, ${key.publicKey}, '', 'AA')`.execute(bed.database.kysely)
  await sql`update devices set keys_wanted = keys_wanted + 1, keys_claim = ${systemIds.next()},
    keys_claim_until = app_now() - interval '1 second' where id = ${phone.id}`.execute(bed.database.kysely)
  await bed.until('the phone to know the key', async () => !(await refused(phone, key)))
})

test('a key is checked, shown by its fingerprint, added once, and gone when it is taken away', async () => {
  const alice = bed.neighbours.person('member')
  const phone = await bed.createRunning(alice)
  const key = await withKey(alice)
  await bed.until('the phone to know the key', async () => !(await refused(phone, key)))
  expect((await bed.ask(alice, 'POST', '/api/adb-keys', { body: { publicKey: key.publicKey } })).status).toBe(
    201,
  )
  const { data: keys } = await bed.ask<AdbKey[]>(alice, 'GET', '/api/adb-keys')
  expect(keys).toHaveLength(1)
  expect(keys[0]).toMatchObject({ label: 'somebody@laptop' })
  expect(keys[0]?.fingerprint).toMatch(/^([0-9A-F]{2}:){15}[0-9A-F]{2}$/)
  const other = bed.neighbours.person('member')
  expect((await bed.ask(other, 'DELETE', `/api/adb-keys/${keys[0]?.id}`)).status).toBe(404)
  expect((await bed.ask(alice, 'DELETE', `/api/adb-keys/${keys[0]?.id}`)).status).toBe(204)
  await bed.until('the phone to forget the key', async () => await refused(phone, key))
  const wrong = { publicKey: `${'QUJD'.repeat(40)} me@here` }
  expect(await bed.ask(alice, 'POST', '/api/adb-keys', { body: wrong })).toMatchObject({
    status: 400,
    problem: { code: 'invalid_adb_key', reason: "it holds 120 bytes, Android's key structure has 524" },
  })
})
