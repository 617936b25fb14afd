import { expect, test } from 'vitest'
import { fakeClock } from './fake-clock.ts'

test('sleepers wake in the order in which they are due, each at its own moment', async () => {
  const clock = fakeClock()
  const woken: [string, number][] = []
  const sleep = async (name: string, ms: number): Promise<void> => {
    await clock.sleep(ms)
    woken.push([name, clock.monotonicMs()])
  }
  const all = [sleep('late', 30), sleep('early', 10), sleep('also early', 10)]
  await clock.advance(29)
  expect(woken).toEqual([
    ['early', 10],
    ['also early', 10],
  ])
  await clock.advance(1)
  await Promise.all(all)
  expect(woken[2]).toEqual(['late', 30])
})

test('a loop that goes back to sleep runs once per period within one advance', async () => {
  const clock = fakeClock()
  const start = clock.now().getTime()
  const ticks: number[] = []
  const stop = new AbortController()
  const loop = (async () => {
    while (!stop.signal.aborted) {
      await clock.sleep(10, stop.signal)
      ticks.push(clock.now().getTime() - start)
    }
  })()
  await clock.advance(35)
  expect(ticks).toEqual([10, 20, 30])
  stop.abort(new Error('enough'))
  await expect(loop).rejects.toThrow('enough')
  expect(clock.sleeping()).toBe(0)
})

test('whenSleeping waits for a loop to come to rest', async () => {
  const clock = fakeClock()
  const resting = clock.whenSleeping(1)
  const asleep = clock.sleep(5)
  await resting
  await clock.advance(5)
  await asleep
})
