import { type Database, openDatabase } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { createTestDatabase, type TestDatabase, testClock } from '@cloudphone/testing/postgres'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Idempotency, openIdempotency, RUNTIME_MIGRATIONS } from './idempotency.ts'
import { common } from './problem.ts'

let town: TestDatabase
let database: Database<unknown>
let idempotency: Idempotency

beforeEach(async () => {
  town = await createTestDatabase({
    migrations: [APP_NOW_MIGRATIONS, RUNTIME_MIGRATIONS],
    schema: 'runtime',
  })
  database = openDatabase({
    url: town.url,
    schema: 'runtime',
    poolSize: 5,
    applicationName: 'test',
    log: silentLog(),
  })
  idempotency = openIdempotency(database)
})

afterEach(async () => {
  await database.close()
  await town.drop()
})

const asked = { caller: 'ann', route: 'createDevice', key: 'k1', body: '{"name":"a"}' }

describe('a request under an Idempotency-Key', () => {
  it('is carried out once and answered alike', async () => {
    let runs = 0
    const work = async () => ({ run: ++runs })
    expect(await idempotency.once(asked, work)).toEqual({ run: 1 })
    expect(await idempotency.once(asked, work)).toEqual({ run: 1 })
    expect(runs).toBe(1)
  })

  it('is another request for another caller or route', async () => {
    let runs = 0
    const work = async () => ++runs
    await idempotency.once(asked, work)
    await idempotency.once({ ...asked, caller: 'bob' }, work)
    await idempotency.once({ ...asked, route: 'other' }, work)
    expect(runs).toBe(3)
  })

  it('is refused with another body, and changes nothing', async () => {
    await idempotency.once(asked, async () => 1)
    await expect(idempotency.once({ ...asked, body: '{}' }, async () => 2)).rejects.toMatchObject({
      code: 'idempotency_key_reused',
      status: 422,
    })
    expect(await idempotency.once(asked, async () => 3)).toBe(1)
  })

  it('is told to wait while the first is being handled; twenty at once run it once', async () => {
    let runs = 0
    const gate = Promise.withResolvers<void>()
    const work = async () => {
      runs += 1
      await gate.promise
      return 'done'
    }
    const all = Array.from({ length: 20 }, () => idempotency.once(asked, work))
    const refused = all.map((one) => one.catch((error: { code: string }) => error.code))
    let settled = 0
    for (const one of refused) void one.then(() => ++settled)
    await expect.poll(() => settled).toBe(19)
    gate.resolve()
    const results = await Promise.all(refused)
    expect(runs).toBe(1)
    expect(results.filter((one) => one === 'done')).toHaveLength(1)
    expect(results.filter((one) => one === 'request_in_progress')).toHaveLength(19)
  })

  it('is free again after a refusal, which changed nothing', async () => {
    await expect(idempotency.once(asked, () => Promise.reject(common.forbidden()))).rejects.toThrow()
    expect(await idempotency.once({ ...asked, body: '{"name":"b"}' }, async () => 'second')).toBe('second')
  })

  it('keeps its name for the retry after an error that tells nothing, so that what it began is found', async () => {
    const names: string[] = []
    const dying = async (name: string) => {
      names.push(name)
      throw new Error('the connection broke, perhaps after the commit')
    }
    await expect(idempotency.once(asked, dying)).rejects.toThrow('the connection broke')
    await idempotency.once(asked, async (name) => void names.push(name))
    expect(names[0]).toBe(names[1])
  })

  it('passes to the next request, under the same name, when its process died in the middle', async () => {
    const clock = testClock(town)
    const names: string[] = []
    void idempotency.once(asked, (name) => {
      names.push(name)
      return new Promise(() => undefined)
    })
    await expect.poll(() => names.length).toBe(1)
    await expect(idempotency.once(asked, async () => 'early')).rejects.toMatchObject({
      code: 'request_in_progress',
    })
    await clock.advance(11_000)
    expect(
      await idempotency.once(asked, async (name) => {
        names.push(name)
        return 'second'
      }),
    ).toBe('second')
    expect(names[0]).toBe(names[1])
  })

  it('is forgotten after a day', async () => {
    const clock = testClock(town)
    await idempotency.once(asked, async () => 1)
    await clock.advance(23 * 3_600_000)
    expect(await idempotency.purge()).toBe(0)
    await clock.advance(2 * 3_600_000)
    expect(await idempotency.purge()).toBe(1)
    expect(await idempotency.once(asked, async () => 2)).toBe(2)
  })
})
