import { access, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { editsOf, withEdit } from '../chaos/guards/guard.ts'
import { guards } from '../chaos/guards/guards.ts'

const PROJECT = join(import.meta.dirname, '../..')
const read = (file: string): Promise<string> => readFile(join(PROJECT, file), 'utf8')

test('`npm run chaos -- guards` finds every guard where it says, exactly once, and the tests that watch it', async () => {
  expect(guards.length).toBeGreaterThanOrEqual(25)
  expect(new Set(guards.map(({ name }) => name)).size).toBe(guards.length)
  for (const guard of guards) {
    for (const edit of editsOf(guard)) {
      const text = await read(edit.file)
      expect(withEdit(guard.name, text, edit)).not.toBe(text)
    }
    for (const file of guard.tests.files) await access(join(PROJECT, file))
  }
})

test('a guard that was rewritten is an error that names it', () => {
  const edit = { file: 'a.sql', find: 'unique', replace: '' }
  expect(() => withEdit('one of each', 'create table a (b text)', edit)).toThrow(
    "Guard 'one of each': its text is 0 times in a.sql, not once",
  )
  expect(() => withEdit('one of each', 'unique unique', edit)).toThrow('2 times in a.sql')
  expect(withEdit('one of each', 'a unique $& b', { ...edit, replace: '$&' })).toBe('a $& $& b')
})
