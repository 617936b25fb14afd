import { expect, test } from 'vitest'
import type { Delivery, Verdict } from '../bus.ts'
import { collect, declared, done, envelope, MOVED, type Open, until, versions } from './support.ts'

/** Order within an aggregate, and how much is in hand at a time. */
export function order(open: Open): void {
  test('events of one aggregate come one after the other, in order, and others do not wait for them', async () => {
    const bus = await declared(open)
    const three = ['a', 'b', 'c']
    const events = Array.from({ length: 60 }, (_, at) =>
      envelope('thing.moved', three[at % 3] ?? '', Math.floor(at / 3) + 1),
    )
    const running = new Map<string, number>()
    let most = 0
    const got = await collect(bus, MOVED, async ({ envelope: { subject } }) => {
      running.set(subject, (running.get(subject) ?? 0) + 1)
      most = Math.max(
        most,
        [...running.values()].reduce((sum, one) => sum + one, 0),
      )
      expect(running.get(subject)).toBe(1)
      await new Promise((resolve) => setImmediate(resolve))
      running.set(subject, 0)
      return done
    })
    await bus.publish(events)
    await bus.idle()
    for (const thing of three) {
      const own = got.filter((delivery) => delivery.envelope.subject === thing)
      expect(versions(own)).toEqual(Array.from({ length: 20 }, (_, at) => at + 1))
    }
    expect(most).toBe(3)
  })

  test('two processes share a queue; each event goes to one of them', async () => {
    const [one, other] = [await declared(open), await open()]
    const got = await Promise.all([collect(one, MOVED), collect(other, MOVED)])
    const events = Array.from({ length: 200 }, (_, at) => envelope('thing.moved', `thing ${at}`, 1))
    for (let at = 0; at < events.length; at += 20) await one.publish(events.slice(at, at + 20))
    await one.idle()
    const ids = got.flat().map((delivery) => delivery.envelope.id)
    expect(ids.toSorted()).toEqual(events.map(({ id }) => id).toSorted())
  })

  test('trap 18: no more than the prefetch is unfinished at a time', async () => {
    const bus = await declared(open)
    const events = Array.from({ length: 20 }, (_, at) => envelope('thing.moved', `thing ${at}`, 1))
    await bus.publish(events)
    let unfinished = 0
    let most = 0
    const handle = async (): Promise<Verdict> => {
      unfinished += 1
      most = Math.max(most, unfinished)
      await new Promise((resolve) => setImmediate(resolve))
      unfinished -= 1
      return done
    }
    await bus.consume(MOVED, handle, { prefetch: 3 })
    await bus.idle()
    expect(most).toBe(3)
  })
}

/** What a consumer does with what it has in hand when it closes. */
export function closing(open: Open): void {
  test('trap 18: a closing consumer finishes what runs and leaves the rest to others', async () => {
    const bus = await declared(open)
    const running = Promise.withResolvers<void>()
    const gate = Promise.withResolvers<void>()
    const first: Delivery[] = []
    const consumer = await bus.consume(MOVED, async (delivery) => {
      first.push(delivery)
      running.resolve()
      await gate.promise
      return done
    })
    await bus.publish([1, 2, 3].map((version) => envelope('thing.moved', 'a', version)))
    await running.promise
    const closed = consumer.close()
    gate.resolve()
    await closed
    expect(versions(first)).toEqual([1])
    const second = await collect(await open(), MOVED)
    await until(() => second.length === 2)
    expect(versions(second)).toEqual([2, 3])
  })
}
