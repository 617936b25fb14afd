import { randomBytes, randomUUID } from 'node:crypto'
import { systemIds } from '@cloudphone/contracts/id'
import { expect, test } from 'vitest'
import { openUsersRoom } from '../testing/users-room.ts'
import { takePortions } from './reservation-repo.ts'
import { insertSession, insertToken } from './session-repo.ts'

test('a session has one unused refresh token', async () => {
  await using room = await openUsersRoom()
  const { id: userId } = await room.account('a@example.com')
  const session = { sessionId: systemIds.next<'session'>(), lifeDays: 30 }
  await insertSession(room.database.kysely, { ...session, userId, tokenHash: randomBytes(32) })
  await expect(
    insertToken(room.database.kysely, { ...session, tokenHash: randomBytes(32) }),
  ).rejects.toMatchObject({ constraint: 'refresh_tokens_live_key' })
})

test('a portion that does not fit is not taken, whatever was decided before', async () => {
  await using room = await openUsersRoom()
  const account = await room.account('b@example.com')
  const limits = { maxDevices: 2, maxCpu: 8, maxMemory: 8, maxStorage: 8, maxSessions: 1 }
  const wide = { maxDevices: 9, maxCpu: 9, maxMemory: 9, maxStorage: 9, maxSessions: 9 }
  const portion = { devices: 1, cpu: 4, memory: 0, storage: 0, sessions: 0 }
  const take = async (user: typeof limits, tenant: typeof limits, more: Partial<typeof portion>[]) =>
    await room.database
      .transaction(async (tx) => {
        const wanted = more.map((one) => ({
          ...{ ...portion, ...one, reservationId: randomUUID(), userId: account.id, ttlSeconds: 60 },
        }))
        if (!(await takePortions(tx, wanted, { user, tenant }))) throw new Error('refused')
        return 'taken'
      })
      .catch((error: Error) => error.message)
  expect(await take(limits, wide, [{}, {}, {}])).toBe('refused')
  expect(await take(wide, limits, [{}, {}, {}])).toBe('refused')
  expect(await take(limits, wide, [{ cpu: 9 }])).toBe('refused')
  expect(await take(wide, limits, [{ cpu: 9 }])).toBe('refused')
  expect(await take(limits, limits, [{}, {}])).toBe('taken')
  expect(await take(limits, wide, [{ devices: 0, cpu: 0, sessions: 1 }])).toBe('taken')
  expect(await take(limits, wide, [{ devices: 0, cpu: 0, sessions: 1 }])).toBe('refused')
  await room.suspend(account)
  expect(await take(wide, wide, [{ cpu: 0 }])).toBe('refused')
})

test('a tenant whose book nobody made gets one with its first reservation', async () => {
  await using room = await openUsersRoom()
  const account = await room.account('c@example.com')
  await room.database.kysely.deleteFrom('tenant_quotas').where('tenant_id', '=', account.tenantId).execute()
  const portion = { devices: 1, cpu: 1, memory: 0, storage: 0, sessions: 0 }
  await room.quotas.reserve({ ...portion, reservationId: randomUUID(), userId: account.id, ttlSeconds: 60 })
  expect((await room.quotas.read(account.id)).tenant.used).toEqual(portion)
})
