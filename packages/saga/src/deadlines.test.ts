import { fakeClock } from '@cloudphone/testing/fake-clock'
import { expect, test } from 'vitest'
import { openDeadlines } from './deadlines.ts'

test('each deadline passes at its own time, whatever the order in which they were set', async () => {
  const clock = fakeClock()
  const deadlines = openDeadlines(clock)
  const passed: string[] = []
  deadlines.after(300, () => passed.push('late'))
  deadlines.after(100, () => passed.push('early'))
  const takeBack = deadlines.after(200, () => passed.push('taken back'))
  await clock.advance(150)
  expect(passed).toEqual(['early'])
  takeBack()
  await clock.advance(150)
  expect(passed).toEqual(['early', 'late'])
  deadlines.after(50, () => passed.push('after a rest'))
  await clock.advance(50)
  expect(passed).toEqual(['early', 'late', 'after a rest'])
  deadlines.close()
})

test('after the end nothing sleeps on', async () => {
  const clock = fakeClock()
  const deadlines = openDeadlines(clock)
  deadlines.after(100, () => expect.unreachable())
  deadlines.close()
  expect(clock.sleeping()).toBe(0)
  deadlines.after(100, () => expect.unreachable())
  expect(clock.sleeping()).toBe(0)
})
