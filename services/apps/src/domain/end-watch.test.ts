import { fakeClock } from '@cloudphone/testing/fake-clock'
import { expect, test } from 'vitest'
import { EndWatch } from './end-watch.ts'

function open() {
  const clock = fakeClock()
  const ended = new Set<string>()
  const asked: (readonly string[])[] = []
  const errors: unknown[] = []
  let fault: Error | undefined
  const watch = new EndWatch({
    clock,
    endedOf: async (ids) => {
      asked.push(ids)
      if (fault !== undefined) throw fault
      return ids.filter((id) => ended.has(id))
    },
    onError: (error) => errors.push(error),
  })
  const breakWith = (error: Error | undefined) => {
    fault = error
  }
  return { clock, ended, asked, errors, watch, breakWith }
}

test('an end that came before the wait is found at once', async () => {
  const { ended, watch } = open()
  ended.add('a')
  await watch.wait('a', 60_000)
  expect(watch.size).toBe(0)
})

test('a hint wakes those whose installation has ended, by one question for all', async () => {
  const { ended, asked, watch, clock } = open()
  const woken: string[] = []
  const waits = ['a', 'b', 'a'].map((id) => watch.wait(id, 60_000).then(() => woken.push(id)))
  await clock.whenSleeping(6)
  await expect.poll(() => asked.length).toBeGreaterThan(0)
  asked.length = 0
  ended.add('a')
  watch.look()
  await Promise.all([waits[0], waits[2]])
  expect(woken).toEqual(['a', 'a'])
  expect(asked).toEqual([['a', 'b']])
  await watch.close()
  await waits[1]
  expect(clock.sleeping()).toBe(0)
})

test('a lost hint costs a second, and a database that was away for a look costs one more', async () => {
  const { ended, errors, watch, clock, breakWith } = open()
  const wait = watch.wait('a', 60_000)
  await clock.whenSleeping(2)
  ended.add('a')
  breakWith(new Error('away'))
  await clock.advance(1_000)
  expect(errors).toHaveLength(1)
  breakWith(undefined)
  await clock.advance(1_000)
  await wait
  expect(clock.sleeping()).toBe(0)
})

test('a wait ends after its time', async () => {
  const { watch, clock } = open()
  const wait = watch.wait('a', 1_500)
  await clock.whenSleeping(2)
  await clock.advance(1_500)
  await wait
  expect(watch.size).toBe(0)
  expect(clock.sleeping()).toBe(0)
})
