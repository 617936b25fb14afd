import { expect, test } from 'vitest'
import type { Delivery, Fate } from '../bus.ts'
import { collect, declared, done, envelope, MOVED, type Open, retry, until, versions } from './support.ts'

/** Events of ten things, in turn, `rounds` of each. */
const crowd = (rounds: number) =>
  Array.from({ length: 10 * rounds }, (_, at) =>
    envelope('thing.moved', `thing ${at % 10}`, Math.floor(at / 10) + 1),
  )

const of = (thing: string, deliveries: readonly Delivery[]): number[] =>
  versions(deliveries.filter((one) => one.envelope.subject === thing))
const upTo = (last: number): number[] => Array.from({ length: last }, (_, at) => at + 1)

/** Deliveries that are handled in one go. */
export function batches(open: Open): void {
  test('what is free goes together, each aggregate in its order; one by itself goes alone', async () => {
    const bus = await declared(open)
    await bus.publish(crowd(12))
    const sizes: number[] = []
    const got: Delivery[] = []
    const alone: Delivery[] = []
    await bus.consume(
      MOVED,
      async (delivery) => {
        alone.push(delivery)
        return done
      },
      {
        prefetch: 60,
        together: async (deliveries) => {
          sizes.push(deliveries.length)
          got.push(...deliveries)
          await new Promise((resolve) => setImmediate(resolve))
          return deliveries.map(() => 'done')
        },
      },
    )
    await bus.idle()
    for (let thing = 0; thing < 10; thing += 1) expect(of(`thing ${thing}`, got)).toEqual(upTo(12))
    expect(Math.min(...sizes)).toBeGreaterThan(1)
    expect(Math.max(...sizes)).toBeLessThanOrEqual(60)
    await bus.publish([envelope('thing.moved', 'by itself', 1)])
    await bus.idle()
    expect(alone.map((one) => one.envelope.subject)).toEqual(['by itself'])
  })

  test('what a batch does not do goes alone or with the next one, and nothing of its aggregate before it', async () => {
    const bus = await declared(open)
    await bus.publish(crowd(6))
    const order: Delivery[] = []
    const alone: string[] = []
    let late = 3
    const fateOf = ({ envelope: { subject, aggregateversion } }: Delivery): Fate => {
      if (subject === 'thing 1' && aggregateversion >= 3) return 'alone'
      if (subject === 'thing 2' && aggregateversion >= 2 && late > 0) return 'later'
      return 'done'
    }
    await bus.consume(
      MOVED,
      async (delivery) => {
        alone.push(`${delivery.envelope.subject} ${delivery.envelope.aggregateversion}`)
        order.push(delivery)
        return done
      },
      {
        prefetch: 100,
        together: async (deliveries) => {
          const fates = deliveries.map(fateOf)
          late -= 1
          order.push(...deliveries.filter((_, at) => fates[at] === 'done'))
          return fates
        },
      },
    )
    await bus.idle()
    for (let thing = 0; thing < 10; thing += 1) expect(of(`thing ${thing}`, order)).toEqual(upTo(6))
    expect(alone).toEqual(expect.arrayContaining(['thing 1 3', 'thing 1 4', 'thing 1 5', 'thing 1 6']))
  })

  test('a batch that throws leaves each to itself; what failed before never joins one', async () => {
    const bus = await declared(open)
    await bus.publish(crowd(3))
    const tries = new Map<string, number>()
    const inBatches: Delivery[] = []
    await bus.consume(
      MOVED,
      async (delivery) => {
        tries.set(delivery.envelope.id, delivery.attempt)
        return delivery.attempt === 1 ? retry('not yet') : done
      },
      {
        prefetch: 100,
        together: async (deliveries) => {
          inBatches.push(...deliveries)
          throw new Error('the whole batch')
        },
      },
    )
    await until(() => tries.size === 30 && [...tries.values()].every((attempt) => attempt === 2))
    await bus.idle()
    expect(new Set(inBatches.map(({ attempt }) => attempt))).toEqual(new Set([1]))
    expect(await bus.deadLetters.list()).toEqual([])
  })

  test('a consumer that closes commits its batches, and what waited behind them is another one’s', async () => {
    const bus = await declared(open)
    await bus.publish(crowd(50))
    const gate = Promise.withResolvers<void>()
    const running = Promise.withResolvers<void>()
    const first: Delivery[] = []
    const consumer = await bus.consume(MOVED, async () => done, {
      prefetch: 500,
      together: async (deliveries) => {
        first.push(...deliveries)
        running.resolve()
        await gate.promise
        // Of each aggregate the first half: the rest was handed in and is given back.
        return deliveries.map(({ envelope: { aggregateversion } }) =>
          aggregateversion <= 10 ? 'done' : 'later',
        )
      },
    })
    await running.promise
    const closed = consumer.close()
    gate.resolve()
    await closed
    const committed = first.filter((one) => one.envelope.aggregateversion <= 10)
    const second = await collect(await open(), MOVED)
    await until(() => second.length === 500 - committed.length)
    const everything = [...committed, ...second]
    expect(new Set(everything.map((one) => one.envelope.id)).size).toBe(500)
    for (let thing = 0; thing < 10; thing += 1) expect(of(`thing ${thing}`, everything)).toEqual(upTo(50))
  })
}
