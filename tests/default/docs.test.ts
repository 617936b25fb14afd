import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { generatedPages } from '../../scripts/docs/pages.ts'

const PROJECT = join(import.meta.dirname, '../..')

test('the pages made of the contracts are those that npm run docs would write', async () => {
  const { version } = JSON.parse(await readFile(join(PROJECT, 'package.json'), 'utf8'))
  const pages = generatedPages({ version })
  expect([...pages.keys()]).toStrictEqual(['docs/events.md', 'docs/openapi.json'])
  for (const [path, text] of pages) {
    const kept = await readFile(join(PROJECT, path), 'utf8')
    expect(kept === text, `${path} is out of date: npm run docs`).toBe(true)
  }
})
