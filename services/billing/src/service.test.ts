import * as api from '@cloudphone/contracts/api/billing-api'
import { AllocationActivated, AllocationReleased } from '@cloudphone/contracts/events/allocation-events'
import {
  DeviceDeleted,
  DeviceFailed,
  DeviceStarted,
  DeviceStopped,
} from '@cloudphone/contracts/events/device-events'
import { type AllocationId, type DeviceId, systemIds, type UserId } from '@cloudphone/contracts/id'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { costMicro } from './domain/cost.ts'
import { type Books, callerOf, type Line, openBooks, type Told, tenantId, told } from './testing/books.ts'

let books: Books
beforeAll(async () => {
  books = await openBooks()
})
afterAll(() => books[Symbol.asyncDispose]())

const base = Date.parse('2026-10-25T00:30:00.000Z')
const iso = (seconds: number) => new Date(base + Math.round(seconds * 1000)).toISOString()

/** The events of a dedicated phone; times in seconds. */
function phoneOf(userId: UserId | null = systemIds.next<'user'>()) {
  const deviceId: DeviceId = systemIds.next<'device'>()
  const facts = { deviceId, deviceName: 'p', tenantId, userId, allocationId: null, fence: 0 }
  return {
    deviceId,
    started: (at: number) => told(DeviceStarted, { ...facts, startedAt: iso(at) }),
    stopped: (from: number | null, at: number) =>
      told(DeviceStopped, {
        ...{ ...facts, startedAt: from === null ? null : iso(from), stoppedAt: iso(at) },
        ...{ duration: 0, reason: 'user' },
      }),
    failed: (from: number | null, at: number) =>
      told(DeviceFailed, {
        ...{ ...facts, startedAt: from === null ? null : iso(from), failedAt: iso(at), reason: 'crashed' },
      }),
    deleted: (at: number) => told(DeviceDeleted, { ...facts, reason: 'deleted', deletedAt: iso(at) }),
  }
}

function allocationOf(deviceId: DeviceId, userId: UserId, from: number) {
  const allocationId: AllocationId = systemIds.next<'allocation'>()
  const facts = { allocationId, deviceId, deviceName: 'p', userId, tenantId, fence: 1 }
  return {
    allocationId,
    activated: told(AllocationActivated, { ...facts, activatedAt: iso(from), expiresAt: iso(from + 3600) }),
    released: (at: number, activated = true) =>
      told(AllocationReleased, {
        ...{ ...facts, activatedAt: activated ? iso(from) : null, releasedAt: iso(at) },
        ...{ durationSeconds: 0, reason: 'user', detail: '' },
      }),
  }
}

const hearAll = async (events: readonly Told[]) => {
  for (const event of events) await books.hear(event)
}

describe('a dedicated phone', () => {
  test('one hour costs its owner 1.00', async () => {
    const owner = callerOf()
    const phone = phoneOf(owner.userId)
    await hearAll([phone.started(0), phone.stopped(0, 3600)])
    expect(await books.call(api.UsageTotal, owner)).toEqual({
      ...{ records: 1, open: 0, seconds: 3600, costMicro: 1_000_000, cost: '1.00', currency: 'CNY' },
    })
    const { items } = await books.call(api.ListUsage, owner)
    expect(items).toMatchObject([
      { duration: 3600, cost: '1.00', closedBy: 'device.stopped', allocationId: null },
    ])
  })

  test('stopped before started: the record is written closed, and the late start changes nothing', async () => {
    const phone = phoneOf()
    await books.hear(phone.stopped(10, 40))
    const bill = await books.bill(phone.deviceId)
    expect(bill).toMatchObject([{ start: iso(10), end: iso(40), seconds: 30, closedBy: 'device.stopped' }])
    await hearAll([phone.started(10), phone.started(10)])
    expect(await books.bill(phone.deviceId)).toEqual(bill)
  })

  test('failed after stopped, and stopped after failed: the run ended at the first of them', async () => {
    const [one, other] = [phoneOf(), phoneOf()]
    await hearAll([one.started(0), one.stopped(0, 50), one.failed(0, 70)])
    await hearAll([other.started(0), other.stopped(0, 50), other.failed(0, 30)])
    expect(await books.bill(one.deviceId)).toMatchObject([{ end: iso(50), closedBy: 'device.stopped' }])
    expect(await books.bill(other.deviceId)).toMatchObject([{ end: iso(30), closedBy: 'device.failed' }])
  })

  test('deleted while it ran closes it, also when the start is heard of later', async () => {
    const [one, other] = [phoneOf(), phoneOf()]
    await hearAll([one.started(0), one.deleted(20)])
    await hearAll([other.deleted(20), other.started(0)])
    for (const { deviceId } of [one, other]) {
      expect(await books.bill(deviceId)).toMatchObject([{ end: iso(20), closedBy: 'device.deleted' }])
    }
  })

  test('the next start ends a run whose end was not heard of; the end corrects it when it comes', async () => {
    const phone = phoneOf()
    await hearAll([phone.started(0), phone.started(100)])
    expect(await books.bill(phone.deviceId)).toMatchObject([
      { start: iso(0), end: iso(100), closedBy: 'superseded' },
      { start: iso(100), end: null },
    ])
    await books.hear(phone.stopped(0, 60))
    expect(await books.bill(phone.deviceId)).toMatchObject([
      { start: iso(0), end: iso(60), seconds: 60, closedBy: 'device.stopped' },
      { start: iso(100), end: null },
    ])
  })

  test('keeps the price of its start', async () => {
    await using dear = await openBooks({ BILLING_PRICE_MICRO_PER_HOUR: '7200000' })
    const phone = phoneOf()
    await dear.hear(phone.started(0))
    await dear.hear(phone.stopped(0, 5))
    expect(await dear.bill(phone.deviceId)).toMatchObject([{ seconds: 5, costMicro: 10_000 }])
  })
})

describe('a pooled phone', () => {
  test('is metered by its allocations, to their users, and by nothing else', async () => {
    const phone = phoneOf(null)
    const [first, second] = [callerOf(), callerOf()]
    const one = allocationOf(phone.deviceId, first.userId, 100)
    const two = allocationOf(phone.deviceId, second.userId, 300)
    await hearAll([phone.started(0), one.activated, one.released(200), two.activated])
    await hearAll([phone.failed(0, 250), phone.stopped(0, 260), phone.deleted(270)])
    expect(await books.bill(phone.deviceId)).toMatchObject([
      { start: iso(100), end: iso(200), closedBy: 'allocation.released' },
      { start: iso(300), end: null },
    ])
    expect(await books.call(api.UsageTotal, first)).toMatchObject({ records: 1, seconds: 100 })
    expect(await books.call(api.UsageTotal, second)).toMatchObject({ records: 0, open: 1, seconds: 0 })
  })

  test('a grant that failed costs nothing', async () => {
    const phone = phoneOf(null)
    await books.hear(allocationOf(phone.deviceId, systemIds.next<'user'>(), 0).released(5, false))
    expect(await books.bill(phone.deviceId)).toEqual([])
  })
})

describe('any order and repetition of the facts makes the same bill', () => {
  /** Stretches of use, each with a pause before it and the facts by which its end is told. */
  const runs = fc.array(
    fc.record({
      pauseMs: fc.integer({ min: 1, max: 5_000 }),
      lengthMs: fc.integer({ min: 1, max: 100_000 }),
      ends: fc.subarray(['stopped', 'failed', 'failed later', 'unnamed'] as const),
    }),
    { minLength: 1, maxLength: 4 },
  )
  const plan = fc.record({
    runs,
    deleted: fc.boolean(),
    repeats: fc.array(fc.nat(30), { maxLength: 6 }),
    seed: fc.infiniteStream(fc.nat(1_000)),
  })

  test('of a dedicated phone', async () => {
    await fc.assert(
      fc.asyncProperty(plan, async ({ runs: lengths, deleted, repeats, seed }) => {
        const phone = phoneOf()
        const events: Told[] = []
        const expected: Line[] = []
        let at = 0
        for (const [index, { pauseMs, lengthMs, ends }] of lengths.entries()) {
          const from = at + pauseMs / 1000
          const to = from + lengthMs / 1000
          const next = lengths[index + 1]
          events.push(phone.started(from))
          if (ends.includes('stopped')) events.push(phone.stopped(from, to))
          if (ends.includes('failed')) events.push(phone.failed(from, to))
          if (ends.includes('failed later')) events.push(phone.failed(from, to + 0.001))
          if (ends.includes('unnamed')) events.push(phone.stopped(null, to))
          const told = ends.length > 0 && !(ends.length === 1 && ends[0] === 'failed later')
          const late = ends.includes('failed later') ? to + 0.001 : undefined
          const after = next === undefined ? (deleted ? to + 1 : undefined) : to + next.pauseMs / 1000
          const end = told ? to : minOf(late, after)
          expected.push(lineOf(from, end))
          at = to
        }
        if (deleted) events.push(phone.deleted(at + 1))
        await hearAll(shuffled([...events, ...repeats.flatMap((n) => events[n] ?? [])], seed))
        const bill = await books.bill(phone.deviceId)
        expect(bill.map(({ closedBy: _, ...line }) => line)).toEqual(
          expected.map(({ closedBy: _, ...line }) => line),
        )
      }),
      { numRuns: 60 },
    )
  })

  test('of a pooled phone', async () => {
    await fc.assert(
      fc.asyncProperty(plan, async ({ runs: lengths, repeats, seed }) => {
        const phone = phoneOf(null)
        const events: Told[] = []
        const expected: Line[] = []
        let at = 0
        for (const { pauseMs, lengthMs } of lengths) {
          const from = at + pauseMs / 1000
          at = from + lengthMs / 1000
          const allocation = allocationOf(phone.deviceId, systemIds.next<'user'>(), from)
          events.push(allocation.activated, allocation.released(at), phone.stopped(from, at))
          expected.push(lineOf(from, at))
        }
        await hearAll(shuffled([...events, ...repeats.flatMap((n) => events[n] ?? [])], seed))
        const bill = await books.bill(phone.deviceId)
        expect(bill.map(({ closedBy: _, ...line }) => line)).toEqual(
          expected.map(({ closedBy: _, ...line }) => line),
        )
      }),
      { numRuns: 30 },
    )
  })

  test('all at once', async () => {
    const phone = phoneOf()
    const events = Array.from({ length: 12 }, (_, n) => [
      phone.started(n * 10),
      phone.stopped(n * 10, n * 10 + 7),
    ]).flat()
    await Promise.all([...events, ...events].map((event) => books.hear(event)))
    const bill = await books.bill(phone.deviceId)
    expect(bill).toHaveLength(12)
    expect(bill.every(({ seconds, closedBy }) => seconds === 7 && closedBy === 'device.stopped')).toBe(true)
  })
})

function minOf(...values: (number | undefined)[]): number | undefined {
  const known = values.filter((value) => value !== undefined)
  return known.length === 0 ? undefined : Math.min(...known)
}

function lineOf(from: number, to: number | undefined): Line {
  if (to === undefined) return { start: iso(from), end: null, seconds: null, costMicro: null, closedBy: null }
  const seconds = Math.floor((Date.parse(iso(to)) - Date.parse(iso(from))) / 1000)
  return { start: iso(from), end: iso(to), seconds, costMicro: costMicro(seconds, 1_000_000), closedBy: null }
}

function shuffled<T>(items: readonly T[], seed: Iterator<number>): T[] {
  return items
    .map((item) => ({ item, at: seed.next().value as number }))
    .sort((one, other) => one.at - other.at)
    .map(({ item }) => item)
}

describe('the database refuses', () => {
  const insert = (values: Record<string, unknown>) => {
    const row = {
      id: systemIds.next<'record'>(),
      user_id: systemIds.next<'user'>(),
      tenant_id: tenantId,
      opened_by_event: systemIds.next<'event'>(),
      price_micro_per_hour: 1_000_000,
      currency: 'CNY',
      ...values,
    }
    const names = Object.keys(row)
    return books.database.pool.query(
      `insert into usage_records (${names.join(', ')}) values (${names.map((_, at) => `$${at + 1}`).join(', ')})`,
      Object.values(row),
    )
  }
  const closed = (from: number, to: number, cost?: number) => ({
    ...{ start_time: iso(from), end_time: iso(to), duration: to - from, closed_by: 'device.stopped' },
    ...{ closed_by_event: systemIds.next<'event'>(), cost_micro: cost ?? costMicro(to - from, 1_000_000) },
  })

  test('two records of one phone that share a moment; another phone’s may', async () => {
    const phone = phoneOf()
    await books.hear(phone.stopped(0, 100))
    const device_id = phone.deviceId
    await insert({ device_id, ...closed(100, 160) })
    await expect(insert({ device_id, ...closed(99, 130) })).rejects.toMatchObject({
      constraint: 'usage_records_no_overlap',
    })
    await expect(insert({ device_id, start_time: iso(50) })).rejects.toMatchObject({
      constraint: 'usage_records_no_overlap',
    })
    const other = phoneOf()
    await books.hear(other.started(50))
    expect(await books.bill(other.deviceId)).toHaveLength(1)
  })

  test('a cost that is not the price of the seconds, halves included', async () => {
    const phone = phoneOf()
    await books.hear(phone.started(0))
    const device_id = phone.deviceId
    await books.hear(phone.stopped(0, 1))
    await expect(insert({ device_id, ...closed(10, 20, 2779) })).rejects.toMatchObject({
      constraint: 'usage_records_cost',
    })
    await insert({ device_id, ...closed(30, 31, 0), price_micro_per_hour: 1800 })
    await insert({ device_id, ...closed(40, 43, 2), price_micro_per_hour: 1800 })
    await expect(insert({ device_id, ...closed(50, 53, 1), price_micro_per_hour: 1800 })).rejects.toThrow(
      /usage_records_cost/,
    )
  })
})

test('operators see others of their tenant, members only themselves, pages go on where they ended', async () => {
  const owner = callerOf()
  const phone = phoneOf(owner.userId)
  await hearAll([phone.stopped(0, 10), phone.stopped(20, 30), phone.started(40)])
  await expect(books.call(api.ListUsage, callerOf(), { userId: owner.userId })).rejects.toMatchObject({
    status: 403,
  })
  await expect(books.call(api.UsageTotal, callerOf(), { userId: owner.userId })).rejects.toMatchObject({
    status: 403,
  })
  const abroad = { ...callerOf('admin'), tenantId: systemIds.next<'tenant'>() }
  expect((await books.call(api.ListUsage, abroad, { userId: owner.userId })).items).toEqual([])
  const operator = callerOf('operator')
  const first = await books.call(api.ListUsage, operator, { userId: owner.userId, limit: 2 })
  expect(first.items.map(({ startTime }) => startTime)).toEqual([iso(40), iso(20)])
  const cursor = first.nextCursor!
  const second = await books.call(api.ListUsage, operator, { userId: owner.userId, limit: 2, cursor })
  expect(second).toMatchObject({ items: [{ startTime: iso(0) }], nextCursor: null })
})

test('the doctor hears that the books add up, and which meters run', async () => {
  const phone = phoneOf()
  await books.hear(phone.started(0))
  const { reports, claims } = await books.parts.invariants!()
  expect(reports.map(({ invariant, holds }) => [invariant, holds])).toEqual([
    [7, true],
    [7, true],
  ])
  expect(claims.filter(({ id }) => id === phone.deviceId)).toMatchObject([{ kind: 'meter' }])
})
