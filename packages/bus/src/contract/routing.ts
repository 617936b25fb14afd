import { expect, test } from 'vitest'
import { ALL, collect, declared, envelope, MOVED, type Open, SEEN, versions } from './support.ts'

/** Where events go, and what the queues tell of themselves. */
export function routing(open: Open): void {
  test('an event reaches each queue that hears it and no other', async () => {
    const bus = await declared(open)
    const seen = envelope('thing.seen', 'a', 1)
    const moved = envelope('thing.moved', 'a', 2)
    expect(await bus.publish([seen, moved])).toEqual([{ outcome: 'accepted' }, { outcome: 'accepted' }])
    const got = await Promise.all([MOVED, ALL, SEEN].map((queue) => collect(bus, queue)))
    await bus.idle()
    expect(got.map((one) => one.map((delivery) => delivery.envelope))).toEqual([
      [moved],
      [seen, moved],
      [seen],
    ])
    expect(got[1]?.[0]).toMatchObject({ queue: ALL, attempt: 1 })
  })

  test('an event without subscribers is accepted; one whose queues are not there is unroutable', async () => {
    const bus = await open()
    const unheard = envelope('thing.unheard', 'a', 1)
    const moved = envelope('thing.moved', 'a', 2)
    expect(await bus.publish([unheard, moved])).toEqual([{ outcome: 'accepted' }, { outcome: 'unroutable' }])
    await bus.declare()
    await bus.declare()
    expect(await bus.publish([moved])).toEqual([{ outcome: 'accepted' }])
    const got = await collect(bus, MOVED)
    await bus.idle()
    expect(got).toHaveLength(1)
  })

  test('what waits in a queue survives the process that published it', async () => {
    const first = await declared(open)
    await first.publish([envelope('thing.moved', 'a', 1)])
    await first.close()
    const second = await open()
    const got = await collect(second, MOVED)
    await second.idle()
    expect(versions(got)).toEqual([1])
  })

  test('statistics tell what each queue holds', async () => {
    const bus = await declared(open)
    await bus.publish([envelope('thing.moved', 'a', 1), envelope('thing.moved', 'b', 1)])
    expect(await bus.statistics()).toContainEqual({
      queue: MOVED,
      ready: 2,
      delayed: 0,
      inFlight: 0,
      dead: 0,
    })
    await collect(bus, MOVED, () => ({ verdict: 'dead', error: new Error('no') }))
    await bus.idle()
    expect(await bus.statistics()).toContainEqual({
      queue: MOVED,
      ready: 0,
      delayed: 0,
      inFlight: 0,
      dead: 2,
    })
  })
}
