import { systemIds, type TenantId, type UserId } from '@cloudphone/contracts/id'
import { type Database, openDatabase } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { createTestDatabase, type TestDatabase, testClock } from '@cloudphone/testing/postgres'
import { present } from '@cloudphone/testing/present'
import { sql } from 'kysely'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type AuditLog, type AuditSearch, type Change, type Deed, openAuditLog } from './audit-log.ts'
import { RUNTIME_MIGRATIONS } from './idempotency.ts'
import { common } from './problem.ts'
import { bySystem, inScope } from './request-scope.ts'

let town: TestDatabase
let database: Database<unknown>
let audit: AuditLog

beforeEach(async () => {
  town = await createTestDatabase({
    migrations: [APP_NOW_MIGRATIONS, RUNTIME_MIGRATIONS],
    schema: 'runtime',
  })
  const log = silentLog()
  database = openDatabase({
    ...{ url: town.url, schema: 'runtime', poolSize: 5, applicationName: 'test', log },
  })
  audit = openAuditLog({ database, ids: systemIds, log, name: 'rooms' })
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

const list = async (of: TenantId | undefined = tenantId) => {
  const rows = await audit.search({ tenantId: of, limit: 50, after: undefined })
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
    expect(await audit.search({ tenantId, limit: 50, after: undefined })).toEqual([
      {
        ...{ id: expect.any(String), at: expect.stringMatching(/Z$/), actor: actor.userId, reason: null },
        ...{ verb: 'saga.retry', target: 'a_saga-1', outcome: 'done', detail: 'it was 7', tenantId },
        ...{ before: null, after: null, requestId: null, sessionId: null, address: null },
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
    await sql`alter table audit_log rename to gone`.execute(database.kysely)
    let isDone = false
    const work = async () => {
      isDone = true
    }
    await expect(audit.record(retry, work, () => null)).rejects.toThrow()
    expect(isDone).toBe(false)
  })

  it('is found by its tenant alone; all of them, and the platform’s, without a tenant', async () => {
    for (const deed of [retry, replay])
      await audit.record(
        deed,
        async () => undefined,
        () => null,
      )
    expect(await list()).toEqual([['a_saga-1', 'done', null]])
    expect(await list(systemIds.next())).toEqual([])
    const all = await audit.search({ limit: 50, after: undefined })
    expect(all.map(({ target }) => target)).toEqual([letter.id, 'a_saga-1'])
  })
})

const cause = {
  actor: systemIds.next(),
  requestId: 'request-1',
  sessionId: 'session-1',
  address: '192.0.2.7',
}
const change: Change = { verb: 'thing.set', target: 'thing-1', tenantId }

describe('a change', () => {
  it('is on record with who did it by which request, what it was and what it is, without secrets', async () => {
    const verbs = await inScope(cause, async (scope) => {
      const thing = { size: 1, password: 'hush' }
      await database.transaction((tx) => audit.add(tx, { ...change, before: thing, after: { size: 2 } }))
      return scope.verbs
    })
    expect(verbs).toEqual(['thing.set'])
    expect(await audit.search({ limit: 50, after: undefined })).toEqual([
      {
        ...{ id: expect.any(String), at: expect.stringMatching(/Z$/), verb: 'thing.set', target: 'thing-1' },
        ...{ ...cause, tenantId, reason: null, outcome: 'done', detail: null },
        ...{ before: { size: 1, password: '[hidden]' }, after: { size: 2 } },
      },
    ])
  })

  it('that is rolled back leaves no record, and none is counted to its request', async () => {
    const verbs = await inScope(cause, async (scope) => {
      const undone = database.transaction(async (tx) => {
        await audit.add(tx, change)
        throw new Error('no')
      })
      await expect(undone).rejects.toThrow('no')
      return scope.verbs
    })
    expect(verbs).toEqual([])
    expect(await list()).toEqual([])
  })

  it('by a loop is the loop’s, by a background that outlives its request the service’s', async () => {
    const add = (target: string) => database.transaction((tx) => audit.add(tx, { ...change, target }))
    await bySystem('rooms.sweep', () => add('by loop'))
    const over = Promise.withResolvers<void>()
    let background = Promise.resolve()
    await inScope(cause, async () => {
      background = over.promise.then(() => add('by background'))
    })
    over.resolve()
    await background
    await database.transaction((tx) =>
      audit.add(tx, { ...change, target: 'by name', actor: 'system:a_saga' }),
    )
    const rows = await audit.search({ limit: 50, after: undefined })
    expect(rows.map(({ target, actor, requestId }) => [target, actor, requestId])).toEqual([
      ['by name', 'system:a_saga', null],
      ['by background', 'system:rooms', null],
      ['by loop', 'system:rooms.sweep', null],
    ])
  })
})

describe('a search', () => {
  const other = systemIds.next<'tenant'>()

  beforeEach(async () => {
    const add = (given: Change) => database.transaction((tx) => audit.add(tx, given))
    await inScope(cause, () => add({ ...change, verb: 'device.start', target: 'd1' }))
    await inScope({ ...cause, requestId: 'request-2' }, () =>
      add({ ...change, verb: 'device.stop', target: 'd1' }),
    )
    await inScope({ ...cause, actor: 'bob' }, () =>
      add({ ...change, verb: 'devices.all', target: 'd2', tenantId: other }),
    )
    await audit
      .record({ ...retry, target: 'refused one' }, () => Promise.reject(common.forbidden()), String)
      .catch(() => undefined)
  })

  const found = async (filter: Partial<AuditSearch>) => {
    const rows = await audit.search({ limit: 50, after: undefined, ...filter })
    return rows.map(({ verb, target }) => `${verb} ${target}`)
  }

  it('finds by each of its filters, and by several at once', async () => {
    expect(await found({ actor: 'bob' })).toEqual(['devices.all d2'])
    expect(await found({ verb: 'device.' })).toEqual(['device.stop d1', 'device.start d1'])
    expect(await found({ verb: 'device_' })).toEqual([])
    expect(await found({ verb: '%' })).toEqual([])
    expect(await found({ target: 'd1' })).toEqual(['device.stop d1', 'device.start d1'])
    expect(await found({ tenantId: other })).toEqual(['devices.all d2'])
    expect(await found({ requestId: 'request-2' })).toEqual(['device.stop d1'])
    expect(await found({ outcome: 'refused' })).toEqual(['saga.retry refused one'])
    expect(await found({ target: 'd1', verb: 'device.start', actor: cause.actor })).toEqual([
      'device.start d1',
    ])
  })

  it('finds by time to the millisecond, and page by page', async () => {
    const rows = await audit.search({ limit: 50, after: undefined })
    const at = present(rows[1]).at
    const later = new Date(Date.parse(at) + 1).toISOString()
    const within = await audit.search({ limit: 50, after: undefined, from: at, to: later })
    expect(within.map(({ id }) => id)).toContain(present(rows[1]).id)
    expect(await found({ to: '2020-01-01T00:00:00Z' })).toEqual([])
    expect(await found({ from: '2999-01-01T00:00:00+01:00' })).toEqual([])
    const second = await audit.search({ limit: 2, after: present(rows[1]).id })
    expect(second.map(({ id }) => id)).toEqual(rows.slice(2, 4).map(({ id }) => id))
  })

  it('by an index of its own for each filter', async () => {
    const { rows } = await sql<{ indexdef: string }>`
      select indexdef from pg_indexes where tablename = 'audit_log'`.execute(database.kysely)
    const indexed = rows.map(({ indexdef }) => /\((\w+)/.exec(indexdef)?.[1])
    expect(new Set(indexed)).toEqual(
      new Set([
        'id',
        'details',
        'tenant_id',
        'actor',
        'target',
        'verb',
        'request_id',
        'outcome',
        'created_at',
      ]),
    )
  })
})

describe('a record', () => {
  it('is not changed or deleted by anybody; one that was begun gets its outcome, once', async () => {
    await database.transaction((tx) => audit.add(tx, change))
    await audit.record(
      retry,
      async () => undefined,
      () => null,
    )
    const refused = (statement: ReturnType<typeof sql>) =>
      expect(statement.execute(database.kysely)).rejects.toThrow(/append-only/)
    await refused(sql`update audit_log set actor = 'somebody else'`)
    await refused(sql`update audit_log set outcome = 'failed'`)
    await refused(sql`delete from audit_log`)
    await refused(sql`truncate audit_log`)
    await sql`insert into audit_log (id, actor, verb, target) values (${systemIds.next()}, 'a', 'b.c', 'begun')`.execute(
      database.kysely,
    )
    await refused(sql`update audit_log set outcome = 'done', target = 'another' where target = 'begun'`)
    await sql`update audit_log set outcome = 'done' where target = 'begun'`.execute(database.kysely)
    await refused(sql`update audit_log set outcome = 'failed' where target = 'begun'`)
    // Not even by who knows the purge's word for it.
    const purging = database.transaction(async (tx) => {
      await sql`select set_config('cloudphone.audit_purge', 'on', true)`.execute(tx)
      await sql`delete from audit_log`.execute(tx)
    })
    await expect(purging).rejects.toThrow(/append-only/)
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
