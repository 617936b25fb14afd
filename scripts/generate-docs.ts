import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { generatedPages } from './docs/pages.ts'

/** `npm run docs`: writes the pages that are made of the contracts. `tests/default/docs.test.ts` tells when it is due. */
const project = join(import.meta.dirname, '..')
const { version } = JSON.parse(await readFile(join(project, 'package.json'), 'utf8'))
for (const [path, text] of generatedPages({ version })) {
  await writeFile(join(project, path), text)
  console.log(path)
}
