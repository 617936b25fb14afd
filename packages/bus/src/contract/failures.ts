import { expect, test } from 'vitest'
import { ALL, collect, declared, done, envelope, MOVED, type Open, retry, SEEN, until } from './support.ts'

/** What becomes of deliveries that fail. */
export function failures(open: Open): void {
  test('trap 14: a failing delivery is tried four times, then it is a dead letter with its reason', async () => {
    const bus = await declared(open)
    const poison = envelope('thing.moved', 'a', 1)
    const died = Promise.withResolvers<void>()
    const got = await collect(bus, MOVED, ({ attempt }) => {
      if (attempt === 4) died.resolve()
      return retry(`attempt ${attempt} failed`)
    })
    await bus.publish([poison])
    await died.promise
    await bus.idle()
    expect(got.map(({ attempt }) => attempt)).toEqual([1, 2, 3, 4])
    const [letter, ...others] = await bus.deadLetters.list()
    expect(others).toEqual([])
    expect(letter).toMatchObject({ queue: MOVED, eventId: poison.id, eventType: 'thing.moved', attempts: 4 })
    expect(letter?.envelope).toEqual(poison)
    expect(letter?.error).toContain('attempt 4 failed')
    expect(letter?.diedAt.getTime()).toBeGreaterThanOrEqual((letter?.firstFailedAt.getTime() ?? 0) + 120)
    expect(await bus.deadLetters.get(letter?.id ?? '')).toEqual(letter)
  })

  test('a thrown error is a failed try', async () => {
    const bus = await declared(open)
    const got = await collect(bus, MOVED, ({ attempt }) => {
      if (attempt === 1) throw new Error('stumbled')
      return done
    })
    const twice = until(() => got.length === 2)
    await bus.publish([envelope('thing.moved', 'a', 1)])
    await twice
    await bus.idle()
    expect(got.map(({ attempt }) => attempt)).toEqual([1, 2])
    expect(await bus.deadLetters.list()).toEqual([])
  })

  test('a poison event holds up no other aggregate', async () => {
    const bus = await declared(open)
    const got = await collect(bus, MOVED, ({ envelope: { subject } }) =>
      subject === 'poison' ? retry('always') : done,
    )
    await bus.publish([
      envelope('thing.moved', 'poison', 1),
      ...Array.from({ length: 100 }, (_, at) => envelope('thing.moved', `thing ${at}`, 1)),
    ])
    await until(() => got.filter((delivery) => delivery.envelope.subject !== 'poison').length === 100)
    await until(async () => (await bus.deadLetters.list()).length === 1)
  })

  test('trap 15: what is refused for good is a dead letter after one try', async () => {
    const bus = await declared(open)
    const got = await collect(bus, MOVED, () => ({ verdict: 'dead', error: new Error('malformed') }))
    await bus.publish([envelope('thing.moved', 'a', 1)])
    await bus.idle()
    expect(got).toHaveLength(1)
    expect(await bus.deadLetters.list()).toMatchObject([{ attempts: 1 }])
  })

  test('an informational queue has no dead letters', async () => {
    const bus = await declared(open)
    const got = await collect(bus, SEEN, () => retry('mail server away'))
    await bus.publish([envelope('thing.seen', 'a', 1)])
    await until(() => got.length === 4)
    await bus.idle()
    expect(await bus.deadLetters.list()).toEqual([])
    expect(await bus.statistics()).toContainEqual({ queue: SEEN, ready: 0, delayed: 0, inFlight: 0, dead: 0 })
  })

  test('a released delivery comes again with all its tries', async () => {
    const bus = await declared(open)
    let released = 0
    const got = await collect(bus, MOVED, () => {
      released += 1
      return released <= 6 ? { verdict: 'release' } : done
    })
    await bus.publish([envelope('thing.moved', 'a', 1)])
    await until(() => got.length === 7)
    await bus.idle()
    expect(new Set(got.map(({ attempt }) => attempt))).toEqual(new Set([1]))
  })
}

/** What operators see of dead letters. */
export function letters(open: Open): void {
  test('trap 15: dead letters are listed in pages and put back under their own event id', async () => {
    const bus = await declared(open)
    const events = Array.from({ length: 5 }, (_, at) => envelope('thing.moved', `thing ${at}`, 1))
    let broken = true
    const got = await collect(bus, MOVED, () =>
      broken ? { verdict: 'dead', error: new Error('bug in the handler') } : done,
    )
    await bus.publish(events)
    await bus.idle()
    const page = await bus.deadLetters.list({ queue: MOVED, limit: 3 })
    const rest = await bus.deadLetters.list({ queue: MOVED, after: page.at(-1)?.id ?? '' })
    expect([...page, ...rest].map(({ eventId }) => eventId).toSorted()).toEqual(
      events.map(({ id }) => id).toSorted(),
    )
    expect(await bus.deadLetters.list({ queue: ALL })).toEqual([])
    broken = false
    got.length = 0
    expect(await bus.deadLetters.replay(page[0]?.id ?? '')).toBe(true)
    expect(await bus.deadLetters.replay(page[0]?.id ?? '')).toBe(false)
    await bus.idle()
    expect(got).toMatchObject([{ attempt: 1, envelope: { id: page[0]?.eventId } }])
    expect(await bus.deadLetters.replayAll({ queue: MOVED })).toBe(4)
    await bus.idle()
    expect(got.map((delivery) => delivery.envelope.id).toSorted()).toEqual(
      events.map(({ id }) => id).toSorted(),
    )
    expect(await bus.deadLetters.list()).toEqual([])
  })
}
