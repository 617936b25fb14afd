import { expect, test } from 'vitest'
import { allocationMismatches, quotaMismatches, sessionMismatches, stillWrong } from './claims.ts'

const quota = (id: string, detail: string) => ({ kind: 'quota', id, detail })
const allocation = (id: string, detail: string) => ({ kind: 'allocation', id, detail })

test('a device needs a committed reservation, unless a saga is making or removing it', () => {
  const users = [quota('a', 'committed'), quota('b', 'reserved'), quota('c', 'reserved')]
  const devices = [
    quota('a', 'RUNNING'),
    quota('b', 'CREATING'),
    quota('c', 'RUNNING'),
    quota('d', 'STOPPED'),
    quota('e', 'DELETING'),
    quota('f', 'CREATING'),
  ]
  expect(quotaMismatches(users, devices)).toEqual([
    { id: 'c', detail: 'device RUNNING holds quota that was never committed' },
    { id: 'd', detail: 'device STOPPED holds quota that nobody reserved' },
  ])
})

test('a committed reservation needs its device; a reserved one may still wait for it', () => {
  expect(quotaMismatches([quota('a', 'committed'), quota('b', 'reserved')], [])).toEqual([
    { id: 'a', detail: 'quota is committed for a device that does not exist' },
  ])
})

test('scheduler and phones must name the same allocation', () => {
  const scheduler = [allocation('a', 'one'), allocation('b', 'two'), allocation('c', 'three')]
  const devices = [allocation('a', 'one'), allocation('b', 'other'), allocation('d', 'four'), quota('e', 'x')]
  expect(allocationMismatches(scheduler, devices).map(({ id }) => id)).toEqual(['b', 'c', 'd'])
})

test('an ACTIVE allocation needs a committed session, and a committed session its allocation', () => {
  const session = (id: string, detail: string) => ({ kind: 'session', id, detail })
  const users = [
    session('a', 'committed'),
    session('b', 'reserved'),
    session('c', 'committed'),
    quota('q', 'x'),
  ]
  const scheduler = [session('a', 'ACTIVE'), session('b', 'PENDING'), session('d', 'ACTIVE')]
  expect(sessionMismatches(users, scheduler)).toEqual([
    { id: 'd', detail: 'an ACTIVE allocation holds a session that is unknown' },
    { id: 'c', detail: 'a session is committed for an allocation that has ended' },
  ])
})

test('only what stood wrong twice in the same way is wrong', () => {
  const a = { id: 'a', detail: 'x' }
  expect(
    stillWrong([a, { id: 'b', detail: 'x' }], [{ id: 'b', detail: 'y' }, a, { id: 'c', detail: 'x' }]),
  ).toEqual([a])
})
