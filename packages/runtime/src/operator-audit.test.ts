import { systemIds, type TenantId, type UserId } from '@cloudphone/contracts/id'
import { type Database, openDatabase } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { createTestDatabase, type TestDatabase, testClock } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { IDEMPOTENCY_MIGRATIONS } from './idempotency.ts'
import { type Deed, type OperatorAudit, openOperatorAudit } from './operator-audit.ts'
import { common } from './problem.ts'

let town: TestDatabase
let database: Database<unknown>
let audit: OperatorAudit

beforeEach(async () => {
  town = await createTestDatabase({
    migrations: [APP_NOW_MIGRATIONS, IDEMPOTENCY_MIGRATIONS],
    schema: 'runtime',
  })
  const log = silentLog()
  database = openDatabase({
    ...{ url: town.url, schema: 'runtime', poolSize: 5, applicationName: 'test', log },
  })
  audit = openOperatorAudit({ database, ids: systemIds, log })
})

afterEach(async () => {
  await database.close()
  await town.drop()
})

const actor = { userId: systemIds.next() as UserId, tenantId: systemIds.next() as TenantId }
const { tenantId } = actor
const letter = {
  id: systemIds.next(),
  eventId: 'e1',
  error: 'no',
  attempts: 4,
  diedAt: '2026-01-01T00:00:00Z',
}
const replay: Deed = {
  ...{ actor, verb: 'dead_letter.replay', target: letter.id, reason: 'mended', tenantId: null },
  details: { queue: 'a.queue', letters: [letter] },
}
const retry: Deed = { actor, verb: 'saga.retry', target: 'a_saga-1', reason: undefined, tenantId }

const list = async (of: string = tenantId) => {
  const rows = await audit.list({ tenantId: of, limit: 50, after: undefined })
  return rows.map(({ target, outcome, detail }) => [target, outcome, detail])
}

describe('what an operator does', () => {
  it('is on the record before it begins, and what came of it afterwards', async () => {
    const result = await audit.record(
      retry,
      async () => {
        expect(await list()).toEqual([['a_saga-1', 'unknown', null]])
        return 7
      },
      (seven) => `it was ${seven}`,
    )
    expect(result).toBe(7)
    expect(await audit.list({ tenantId, limit: 50, after: undefined })).toEqual([
      {
        ...{ id: expect.any(String), at: expect.stringMatching(/Z$/), actor: actor.userId, reason: null },
        ...{ verb: 'saga.retry', target: 'a_saga-1', outcome: 'done', detail: 'it was 7' },
      },
    ])
  })

  it('is on the record when it was refused, and when it failed, whose words stay inside', async () => {
    const fail = (error: Error) => audit.record(retry, () => Promise.reject(error), String)
    const refusal = common.forbidden({ permission: 'x' })
    await expect(fail(refusal)).rejects.toBe(refusal)
    await expect(fail(new Error('password=1234'))).rejects.toThrow('1234')
    expect(await list()).toEqual([
      ['a_saga-1', 'failed', expect.not.stringContaining('1234')],
      ['a_saga-1', 'refused', refusal.message],
    ])
  })

  it('is not done when it cannot be recorded', async () => {
    await sql`alter table operator_audit rename to gone`.execute(database.kysely)
    let isDone = false
    const work = async () => {
      isDone = true
    }
    await expect(audit.record(retry, work, () => null)).rejects.toThrow()
    expect(isDone).toBe(false)
  })

  it('to a tenant’s things is that tenant’s to read, to the platform’s everybody’s who may', async () => {
    for (const deed of [retry, replay])
      await audit.record(
        deed,
        async () => undefined,
        () => null,
      )
    expect(await list()).toEqual([
      [letter.id, 'done', null],
      ['a_saga-1', 'done', null],
    ])
    expect(await list(systemIds.next())).toEqual([[letter.id, 'done', null]])
  })
})

describe('replays', () => {
  it('are found by their letter and by their event, unless they were refused', async () => {
    await audit.record(
      replay,
      async () => true,
      () => null,
    )
    await expect(audit.record(replay, () => Promise.reject(common.forbidden()), String)).rejects.toThrow()
    expect(await audit.replayOf(letter.id)).toMatchObject({ reason: 'mended', details: replay.details })
    expect(await audit.replayOf(systemIds.next())).toBeUndefined()
    expect(await audit.replaysOf({ queue: 'a.queue', eventId: 'e1' })).toHaveLength(1)
    expect(await audit.replaysOf({ queue: 'another', eventId: 'e1' })).toEqual([])
  })
})

it('forgets after a year', async () => {
  const clock = testClock(town)
  await audit.record(
    retry,
    async () => undefined,
    () => null,
  )
  await clock.advance(364 * 86_400_000)
  expect(await audit.purge()).toBe(0)
  await clock.advance(3 * 86_400_000)
  expect(await audit.purge()).toBe(1)
})
