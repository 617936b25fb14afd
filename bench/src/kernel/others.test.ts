import { expect, test } from 'vitest'
import { Disturbances } from './others.ts'

test('rounds that others disturbed are named with what they used', () => {
  const rounds = new Disturbances()
  rounds.add({ title: 'sagas', entry: 'ours 1', others: { share: 0, names: [] } })
  expect(rounds.toString()).toBe('none of 1 rounds: nobody else used 5 % of a core')
  rounds.add({ title: 'sagas', entry: 'DBOS 1', others: { share: 0.31, names: ['node', 'cron'] } })
  rounds.add({ title: 'relay', entry: 'ours 1', others: { share: 1.2, names: ['node'] } })
  expect(rounds.toString()).toBe(
    '2 of 3 rounds, so take them with care: others (cron, node) used so much of a core: sagas: DBOS 1 (31 %); relay: ours 1 (120 %)',
  )
})
