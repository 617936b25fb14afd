import { glob, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { matrix, nameOf, pointsOf, smoke } from '../chaos/kernel/cells.ts'
import { runCells } from '../chaos/kernel/field.ts'
import { nthBy } from '../chaos/kernel.ts'

/* The smoke part of `npm run chaos -- kernel`; on a quiet machine it takes some 60 s. */

const root = join(import.meta.dirname, '../..')

test('the matrix knows every crash point of the kernel', async () => {
  const found = new Set<string>()
  for await (const path of glob('packages/{saga,outbox,bus}/src/**/*.ts', { cwd: root })) {
    const text = await readFile(join(root, path), 'utf8')
    for (const [, name] of text.matchAll(/crash\.reach\(\s*['`]([^'`]+)['`]/g))
      if (name !== undefined) found.add(name)
  }
  const points = pointsOf()
  // The points of steps are written with their saga's type, step and place in them.
  const [steps, halls] = [
    [...found].filter((one) => one.includes('$')),
    [...found].filter((one) => !one.includes('$')),
  ]
  expect(halls.sort()).toEqual(points.filter((one) => !/^saga\..*\./.test(one)).sort())
  expect(steps).toHaveLength(1)
})

test('what is left out of the matrix is left out for a reason, and counted', () => {
  const { cells, excluded } = matrix()
  const twice = cells.filter(({ times }) => times === 2).length
  const left = excluded.reduce((sum, one) => sum + one.cells, 0)
  expect(cells.length - twice + left).toBe(pointsOf().length * 7 * 2 * 2)
  expect(excluded.filter(({ reason }) => reason === '')).toEqual([])
  expect(new Set(cells.map(nameOf)).size).toBe(cells.length)
})

test('whatever happens to a process or a server, nothing is lost, doubled or leaked', {
  timeout: 600_000,
}, async () => {
  const cells = smoke(matrix().cells)
  const results = await runCells({ cells, nthOf: nthBy(20_261_120), progress: (line) => console.info(line) })
  expect(results.flatMap(({ cell, complaints }) => complaints.map((one) => [nameOf(cell), one]))).toEqual([])
  expect(results.filter(({ fired, cell }) => fired !== cell.times).map(({ cell }) => nameOf(cell))).toEqual(
    [],
  )
  expect(results).toHaveLength(cells.length)
})
