/* A constant load: sagas and events are asked for at a fixed rate, whether or not those before have ended. A load that
 * waits for answers would slow down with the system and hide its fault. */
import { setTimeout as sleep } from 'node:timers/promises'
import { systemIds } from '@cloudphone/contracts/id'
import { openDatabase } from '@cloudphone/db/database'
import { isUnavailable, isUniqueViolation } from '@cloudphone/db/errors'
import { notifier } from '@cloudphone/db/listen'
import { silentLog } from '@cloudphone/observe/log'
import { fact, openOutbox } from '@cloudphone/outbox/open-outbox'
import { outboxChannel } from '@cloudphone/outbox/relay'
import type { Promised } from '../kernel/auditor.ts'
import { ofCreation } from '../kernel/creation-shape.ts'
import { SCHEMA, type Wish } from '../kernel/world.ts'
import { TENANTS } from './stage.ts'

export interface Load {
  /** What has been asked for so far, and taken. */
  readonly promised: readonly Promised[]
  /** How many events of the load itself were written and are to be applied. */
  readonly events: number
  /** Writes so many events at once. */
  burst(count: number): Promise<void>
  /** Asks for nothing more; resolves when everything asked for was taken. @throws what kept it from being taken. */
  close(): Promise<void>
}

export interface LoadOptions {
  /** Asks workers until one of them has taken it. */
  readonly begin: (wishes: readonly Wish[]) => Promise<void>
  /** The database, for those who write events. */
  readonly url: string
  readonly sagasPerSecond: number
  readonly eventsPerSecond: number
}

const TURN_MS = 200
const AGGREGATES = 16
const AGAIN_MS = 100
/** Events of a burst that share a transaction. */
const BATCH = 500

export function openLoad(options: LoadOptions): Load {
  const { begin, url, sagasPerSecond, eventsPerSecond } = options
  const teller = openTeller(url)
  const promised: Promised[] = []
  const underway: Promise<void>[] = []
  const closed = new AbortController()
  let asked = 0
  let told = 0

  const ask = async (count: number): Promise<void> => {
    const wanted = Array.from({ length: count }, () => {
      asked += 1
      return wishOf(asked)
    })
    if (count > 0) await begin(wanted.map(({ wish }) => wish))
    promised.push(...wanted)
  }
  const run = async (): Promise<void> => {
    const startedMs = performance.now()
    for (let dueMs = startedMs; !closed.signal.aborted; dueMs += TURN_MS) {
      const seconds = (performance.now() - startedMs) / 1_000
      const due = [seconds * sagasPerSecond - asked, seconds * eventsPerSecond - told].map(Math.floor)
      const [sagas = 0, events = 0] = due.map((count) => Math.max(0, count))
      told += events
      const work = [ask(sagas), teller.tell(events)]
      // Awaited in `close`.
      for (const one of work) one.catch(() => undefined)
      underway.push(...work)
      await sleep(Math.max(0, dueMs + TURN_MS - performance.now()))
    }
  }
  const running = run()
  const close = async (): Promise<void> => {
    closed.abort()
    await running
    try {
      await Promise.all(underway)
    } finally {
      await teller.close()
    }
  }
  let closing: Promise<void> | undefined
  return {
    promised,
    get events() {
      return teller.told
    },
    burst: async (count) => {
      for (let left = count; left > 0; left -= BATCH) await teller.tell(Math.min(BATCH, left))
    },
    close() {
      closing ??= close()
      return closing
    },
  }
}

/** Of each definition as many that succeed as turn back. */
function wishOf(number: number): Promised {
  const turn = Math.floor(number / 4)
  const tenant = `tenant-${turn % TENANTS}`
  switch (number % 4) {
    case 0:
      return {
        wish: { type: 'payment_purchase', input: { orderId: `paid-${turn}`, planId: 'basic' } },
        end: 'COMPLETED',
      }
    case 1:
      return {
        wish: { type: 'payment_purchase', input: { orderId: `declined-${turn}`, planId: 'basic' } },
        end: 'COMPENSATED',
      }
    case 2:
      return {
        wish: { type: 'thing_creation', input: { thingId: `wanted-${turn}`, tenant, unwanted: false } },
        end: 'COMPLETED',
      }
    default:
      return {
        wish: { type: 'thing_creation', input: { thingId: `unwanted-${turn}`, tenant, unwanted: true } },
        end: 'COMPENSATED',
      }
  }
}

/** A service that only writes events: one aggregate after the other, each under its next version. */
function openTeller(url: string) {
  const log = silentLog()
  const database = openDatabase<unknown>({
    ...{ url, log, schema: SCHEMA, poolSize: 2, applicationName: 'teller' },
  })
  const notify = notifier({ url, log, applicationName: 'teller notifier' })
  const outbox = openOutbox({
    ...{ source: 'teller', ids: systemIds, wake: () => notify.notify(outboxChannel(SCHEMA)) },
  })
  let told = 0
  let last: Promise<void> = Promise.resolve()

  const write = async (count: number): Promise<void> => {
    const facts = Array.from({ length: count }, (_, at) => {
      const number = told + at
      const thingId = `told-${number % AGGREGATES}`
      const aggregateVersion = 1 + Math.floor(number / AGGREGATES)
      return fact(ofCreation, {
        ...{ aggregateId: thingId, aggregateVersion, payload: { sagaId: 'none', thingId } },
      })
    })
    for (;;) {
      try {
        await database.transaction((tx) => outbox.addMany(tx, facts))
        break
      } catch (error) {
        // The try before had been committed; only its answer was lost.
        if (isUniqueViolation(error)) break
        if (!isUnavailable(error)) throw error
        await sleep(AGAIN_MS)
      }
    }
    told += count
  }
  return {
    get told() {
      return told
    },
    /** One after the other: versions rise in the order of commits. */
    tell(count: number): Promise<void> {
      last = last.then(() => write(count))
      return last
    },
    async close() {
      await notify.close()
      await database.close()
    },
  }
}
