import { expect, test } from 'vitest'
import { DatabaseUnavailable } from './errors.ts'
import { groupCommit } from './group-commit.ts'

test('writes that come while two batches are on their way go together in the next one', async () => {
  const batches: { ids: string[]; commit: () => void }[] = []
  const write = groupCommit<string, string>(async (ids) => {
    const committed = Promise.withResolvers<void>()
    batches.push({ ids: [...ids], commit: committed.resolve })
    await committed.promise
    return ids
  })
  const one = write('1')
  await turn()
  const two = write('2')
  await turn()
  const rest = ['3', '4', '5'].map((id) => write(id))
  await turn()
  expect(batches.map(({ ids }) => ids)).toEqual([['1'], ['2']])
  batches[0]?.commit()
  expect(await one).toBe('1')
  await turn()
  expect(batches[2]?.ids).toEqual(['3', '4', '5'])
  for (const { commit } of batches) commit()
  await Promise.all([two, ...rest])
})

test('a batch that is refused for what one of them holds: the others are written all the same', async () => {
  const written: string[] = []
  const write = groupCommit<string, string>(async (ids) => {
    if (ids.includes('poison')) throw new Error('no such text')
    written.push(...ids)
    return ids
  })
  const fates = await Promise.allSettled(['a', 'poison', 'b'].map((id) => write(id)))
  expect(fates.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
  expect(written).toEqual(['a', 'b'])
})

test('a database that is away is asked once for all of them, and each hears of it', async () => {
  let asked = 0
  const write = groupCommit<string, string>(async () => {
    asked += 1
    throw new DatabaseUnavailable('gone')
  })
  const fates = await Promise.allSettled(['a', 'b', 'c'].map((id) => write(id)))
  expect(fates.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected'])
  expect(asked).toBe(1)
})

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
}
