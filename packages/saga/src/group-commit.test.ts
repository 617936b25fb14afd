import { DatabaseUnavailable } from '@cloudphone/db/errors'
import { expect, test } from 'vitest'
import type { Checkpoint } from './checkpoint.ts'
import { groupCommit } from './group-commit.ts'
import type { SagaRow } from './row.ts'

const pointOf = (sagaId: string): Checkpoint => ({ row: { sagaId } }) as Checkpoint
const rowOf = ({ row }: Checkpoint): SagaRow => row

test('checkpoints that come while two batches are on their way go together in the next one', async () => {
  const batches: { ids: string[]; commit: () => void }[] = []
  const checkpoint = groupCommit(async (points) => {
    const committed = Promise.withResolvers<void>()
    batches.push({ ids: points.map(({ row }) => row.sagaId), commit: committed.resolve })
    await committed.promise
    return points.map(rowOf)
  })
  const one = checkpoint(pointOf('1'))
  await turn()
  const two = checkpoint(pointOf('2'))
  await turn()
  const rest = ['3', '4', '5'].map((id) => checkpoint(pointOf(id)))
  await turn()
  expect(batches.map(({ ids }) => ids)).toEqual([['1'], ['2']])
  batches[0]?.commit()
  expect((await one)?.sagaId).toBe('1')
  await turn()
  expect(batches[2]?.ids).toEqual(['3', '4', '5'])
  for (const { commit } of batches) commit()
  await Promise.all([two, ...rest])
})

test('a batch that is refused for what one of them holds: the others are written all the same', async () => {
  const written: string[] = []
  const checkpoint = groupCommit(async (points) => {
    if (points.some(({ row }) => row.sagaId === 'poison')) throw new Error('no such text')
    written.push(...points.map(({ row }) => row.sagaId))
    return points.map(rowOf)
  })
  const fates = await Promise.allSettled(['a', 'poison', 'b'].map((id) => checkpoint(pointOf(id))))
  expect(fates.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
  expect(written).toEqual(['a', 'b'])
})

test('a database that is away is asked once for all of them, and each hears of it', async () => {
  let asked = 0
  const checkpoint = groupCommit(async () => {
    asked += 1
    throw new DatabaseUnavailable('gone')
  })
  const fates = await Promise.allSettled(['a', 'b', 'c'].map((id) => checkpoint(pointOf(id))))
  expect(fates.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected'])
  expect(asked).toBe(1)
})

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
}
