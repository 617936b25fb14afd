import { glob, readFile } from 'node:fs/promises'
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

test('docs/operations.md names every setting of the server and of each service, and no other', async () => {
  const sources = [
    'server/src/settings.ts',
    ...(await Array.fromAsync(glob('services/*/src/config.ts', { cwd: PROJECT }))),
  ]
  const declared = new Set<string>()
  for (const source of sources) {
    const text = await readFile(join(PROJECT, source), 'utf8')
    for (const [, name] of text.matchAll(/^ {2}([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+):/gm)) declared.add(name!)
  }
  expect(declared.size).toBeGreaterThan(30)
  const page = await readFile(join(PROJECT, 'docs/operations.md'), 'utf8')
  const told = new Set([...page.matchAll(/^\| `([A-Z0-9_]+)` \|/gm)].map(([, name]) => name!))
  expect([...told].toSorted()).toStrictEqual([...declared].toSorted())
})
