import { fakeClock } from '@cloudphone/testing/fake-clock'
import { expect, test } from 'vitest'
import { Balancer, RetryBudget } from './balancer.ts'

function open(addresses: readonly string[]) {
  const clock = fakeClock()
  const told: string[] = []
  const balancer = new Balancer({
    ejected: ({ address, forMs }) => told.push(`${address} out for ${forMs}`),
    readmitted: ({ address }) => told.push(`${address} back`),
    opened: ({ forMs }) => told.push(`open for ${forMs}`),
    closed: () => told.push('closed'),
  })
  const now = () => clock.monotonicMs()
  balancer.know(addresses, now())
  return { clock, told, balancer, now }
}

/** Chooses and is done at once. */
function pass(balancer: Balancer, tried: readonly string[] = []): string | undefined {
  const address = balancer.choose(tried)
  if (address !== undefined) balancer.release(address)
  return address
}

test('who has least pending is next, and among equals they take turns', () => {
  const { balancer } = open(['a', 'b', 'c'])
  expect([pass(balancer), pass(balancer), pass(balancer), pass(balancer)]).toEqual(['a', 'b', 'c', 'a'])
  const busy = balancer.choose([])
  expect(busy).toBe('b')
  expect([pass(balancer), pass(balancer), pass(balancer)]).toEqual(['c', 'a', 'c'])
  balancer.release('b')
  expect(balancer.state(0)).toEqual({ pending: 0, ejected: 0, breaker: 'closed' })
})

test('an instance that is gone leaves rotation at the first refusal, for longer each time, until a probe finds it', async () => {
  const { balancer, clock, told, now } = open(['a', 'b'])
  balancer.note('a', 'unreachable', now())
  // What was on its way to it fails too: still one ejection.
  balancer.note('a', 'unreachable', now())
  expect([pass(balancer), pass(balancer)]).toEqual(['b', 'b'])
  expect(balancer.dueProbes(now())).toEqual([])
  await clock.advance(1_000)
  expect(balancer.dueProbes(now())).toEqual(['a'])
  expect(balancer.dueProbes(now())).toEqual([])
  balancer.note('a', 'unreachable', now())
  await clock.advance(1_999)
  expect(balancer.dueProbes(now())).toEqual([])
  await clock.advance(1)
  expect(balancer.dueProbes(now())).toEqual(['a'])
  balancer.note('a', 'served', now())
  expect(told).toEqual(['a out for 1000', 'a back'])
  expect([pass(balancer), pass(balancer)].toSorted()).toEqual(['a', 'b'])
  // Soon again: longer than before. After a quiet minute: as at first.
  balancer.note('a', 'unreachable', now())
  await clock.advance(4_000)
  balancer.dueProbes(now())
  balancer.note('a', 'served', now())
  await clock.advance(60_001)
  balancer.note('a', 'unreachable', now())
  expect(told.filter((line) => line.startsWith('a out'))).toEqual([
    'a out for 1000',
    'a out for 4000',
    'a out for 1000',
  ])
})

test('five bad answers in a row put an instance out, a good one between them starts the count anew', () => {
  const { balancer, told, now } = open(['a', 'b'])
  for (let count = 0; count < 4; count += 1) balancer.note('a', 'failing', now())
  balancer.note('a', 'served', now())
  for (let count = 0; count < 4; count += 1) balancer.note('a', 'failing', now())
  expect(told).toEqual([])
  balancer.note('a', 'failing', now())
  expect(told).toEqual(['a out for 1000'])
})

test('the last one in rotation is never put out, and those outside are tried before a request is given up', () => {
  const { balancer, told, now } = open(['a', 'b'])
  balancer.note('a', 'unreachable', now())
  balancer.note('b', 'unreachable', now())
  expect(told).toEqual(['a out for 1000'])
  expect(pass(balancer)).toBe('b')
  expect(pass(balancer, ['b'])).toBe('a')
  expect(pass(balancer, ['b', 'a'])).toBeUndefined()
  // It answered after all: back in rotation without a probe.
  balancer.note('a', 'served', now())
  expect(told).toEqual(['a out for 1000', 'a back'])
})

test('an instance that the registry no longer names gets nothing, and is forgotten with its last request', () => {
  const { balancer, now } = open(['a', 'b'])
  const held = balancer.choose([])
  expect(held).toBe('a')
  balancer.know(['b'], now())
  expect([pass(balancer), pass(balancer)]).toEqual(['b', 'b'])
  expect(balancer.state(now()).pending).toBe(1)
  balancer.release('a')
  expect(balancer.state(now()).pending).toBe(0)
})

test('a service of which nobody answers is refused at once, tried after a pause, and open again with its first answer', async () => {
  const { balancer, clock, told, now } = open(['a'])
  for (let count = 0; count < 5; count += 1) {
    expect(balancer.refusal(now())).toBeUndefined()
    balancer.noteFailed(now())
  }
  expect(balancer.refusal(now())).toBe(1_000)
  // Was under way when it opened: no reason to wait longer.
  balancer.noteFailed(now())
  await clock.advance(400)
  expect(balancer.refusal(now())).toBe(600)
  expect(balancer.state(now()).breaker).toBe('open')
  await clock.advance(600)
  expect(balancer.state(now()).breaker).toBe('half-open')
  expect(balancer.refusal(now())).toBeUndefined()
  expect(balancer.refusal(now())).toBe(1_000)
  balancer.noteFailed(now())
  expect(balancer.refusal(now())).toBe(2_000)
  await clock.advance(2_000)
  expect(balancer.refusal(now())).toBeUndefined()
  balancer.note('a', 'served', now())
  expect(balancer.refusal(now())).toBeUndefined()
  expect(told).toEqual(['open for 1000', 'open for 2000', 'closed'])
})

test('the pause of a service ends when an instance comes that nobody has tried', () => {
  const { balancer, now } = open(['a'])
  for (let count = 0; count < 5; count += 1) balancer.noteFailed(now())
  expect(balancer.refusal(now())).toBe(1_000)
  balancer.know(['a', 'b'], now())
  expect(balancer.refusal(now())).toBeUndefined()
})

test('when everything fails, one request in five is sent again', () => {
  const budget = new RetryBudget()
  let sentAgain = 0
  for (let request = 0; request < 1_000; request += 1) {
    budget.earn()
    if (budget.spend()) sentAgain += 1
  }
  expect(sentAgain).toBeGreaterThanOrEqual(200)
  expect(sentAgain).toBeLessThanOrEqual(225)
})
