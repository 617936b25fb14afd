import { expect, test } from 'vitest'
import { judge } from './figure.ts'
import { runProgram, type Suite } from './program.ts'
import { closedLoop, median, openLoop, percentile } from './samples.ts'
import { drawTable, markdownTable } from './table.ts'

test('a figure holds by its comparison, and one of which nothing is wanted holds', () => {
  const holds = (ours: number, is: '<' | '<=' | '>=' | '>') =>
    judge({ name: 'x', ours, wanted: { is, than: 50 } }).holds
  expect([49, 50, 51].map((value) => holds(value, '<'))).toStrictEqual([true, false, false])
  expect([49, 50, 51].map((value) => holds(value, '<='))).toStrictEqual([true, true, false])
  expect([49, 50, 51].map((value) => holds(value, '>='))).toStrictEqual([false, true, true])
  expect([49, 50, 51].map((value) => holds(value, '>'))).toStrictEqual([false, false, true])
  expect(judge({ name: 'told', ours: 3 })).toStrictEqual({
    ...{ name: 'told', ours: 3, peer: null, ratio: null, wanted: null, holds: true },
  })
})

test('the ratio is ours to the peer', () => {
  const row = judge({ name: 'x', ours: 2000, peer: 500, wanted: { is: '>=', than: 1000 } })
  expect(row).toStrictEqual({ name: 'x', ours: 2000, peer: 500, ratio: 4, wanted: '>= 1000', holds: true })
})

test('what is wanted of the ratio is judged by it, and ranges are shown beside medians', () => {
  const figure = {
    name: 'x',
    ours: 2000,
    peer: 500,
    oursRange: [1800, 2100.04],
    peerRange: [400, 600],
  } as const
  const row = judge({ ...figure, wanted: { is: '>=', than: 5, of: 'ratio' } })
  expect(row).toMatchObject({ ratio: 4, wanted: '>= 5x', holds: false })
  expect(judge({ ...figure, wanted: { is: '>=', than: 4, of: 'ratio' } }).holds).toBe(true)
  expect(judge({ name: 'x', ours: 1, wanted: { is: '>=', than: 0, of: 'ratio' } }).holds).toBe(false)
  expect(markdownTable([row]).split('\n').at(-1)).toBe(
    '| x | 2000 (1800-2100) | 500 (400-600) | 4 | >= 5x | NO |',
  )
})

test('a measurement without a number never holds, and is null in JSON', () => {
  const row = judge({ name: 'x', ours: Number.NaN, peer: 0, wanted: { is: '<', than: 1 } })
  expect(row).toMatchObject({ ours: null, ratio: null, holds: false })
  expect(judge({ name: 'x', ours: 1, peer: 0 }).ratio).toBeNull()
})

test('the verdict is judged before the number is rounded for show', () => {
  const row = judge({ name: 'x', ours: 50.0001, wanted: { is: '<=', than: 50 } })
  expect(row).toMatchObject({ ours: 50, holds: false })
})

test('percentiles are nearest ranks', () => {
  const hundred = Array.from({ length: 100 }, (_, index) => 100 - index)
  expect([0, 0.5, 0.99, 1].map((share) => percentile(hundred, share))).toStrictEqual([1, 50, 99, 100])
  expect(median([3, 1, 2])).toBe(2)
  expect(percentile([], 0.99)).toBeNaN()
})

test('an open loop charges a stall to every request that was due in it', async () => {
  let free = Promise.resolve()
  const answers = await openLoop({
    count: 10,
    perSecond: 1000,
    send: (index) => {
      // One at a time; the first takes 50 ms, so the others, due within 10 ms, wait for it.
      free = free.then(() => new Promise((resolve) => setTimeout(resolve, index === 0 ? 50 : 0)))
      return free
    },
  })
  expect(answers).toHaveLength(10)
  expect(Math.min(...answers.map(({ ms }) => ms))).toBeGreaterThan(35)
})

test('an open loop with a failed request gives no samples', async () => {
  const send = (index: number) => (index === 1 ? Promise.reject(new Error('no')) : Promise.resolve(index))
  await expect(openLoop({ count: 3, perSecond: 1000, send })).rejects.toThrow(
    '1 of 3 failed, first: Error: no',
  )
})

test('a closed loop keeps its lines busy and lets the last ones end', async () => {
  let inFlight = 0
  let most = 0
  const { count, elapsedMs, latenciesMs } = await closedLoop({
    concurrency: 3,
    durationMs: 30,
    once: async () => {
      inFlight += 1
      most = Math.max(most, inFlight)
      await new Promise((resolve) => setTimeout(resolve, 10))
      inFlight -= 1
    },
  })
  expect([most, inFlight]).toStrictEqual([3, 0])
  expect(latenciesMs).toHaveLength(count)
  expect(elapsedMs).toBeGreaterThanOrEqual(30)
})

test('a suite hears its switches and options', async () => {
  const heard: unknown[] = []
  const suite: Suite = {
    summary: 'listens',
    options: { rounds: { default: '5', help: 'how many' } },
    switches: { quick: 'shorter' },
    run: async (task) => {
      heard.push(task.isOn('quick'), task.number('rounds'))
      return { figures: [] }
    },
  }
  const program = { command: 'test', suites: { suite } }
  expect(await runProgram(program, ['suite'])).toBe(0)
  expect(await runProgram(program, ['suite', '--quick', '--rounds', '2'])).toBe(0)
  expect(await runProgram(program, ['suite', '--slow'])).toBe(2)
  expect(heard).toStrictEqual([false, 5, true, 2])
})

test('tables show a missed figure plainly', () => {
  const rows = [
    judge({ name: 'fast (ms)', ours: 3, wanted: { is: '<', than: 50 } }),
    judge({ name: 'slow (ms)', ours: 70, peer: 35, wanted: { is: '<', than: 50 } }),
    judge({ name: 'told (KiB)', ours: 12.5 }),
  ]
  expect(drawTable(rows)).toBe(
    [
      'FIGURE      OURS  PEER  RATIO  WANTED  HOLDS',
      'fast (ms)      3     -      -    < 50    yes',
      'slow (ms)     70    35      2    < 50     NO',
      'told (KiB)  12.5     -      -       -      -',
    ].join('\n'),
  )
  expect(markdownTable(rows).split('\n').at(-2)).toBe('| slow (ms) | 70 | 35 | 2 | < 50 | NO |')
})
