import { randomBytes } from 'node:crypto'
import { systemIds } from '@cloudphone/contracts/id'
import { expect, test } from 'vitest'
import { openUsersRoom } from '../testing/users-room.ts'
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
