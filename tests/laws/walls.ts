import { join } from 'node:path'
import { cruise, type ICruiseResult } from 'dependency-cruiser'
import extractDepcruiseOptions from 'dependency-cruiser/config-utl/extract-depcruise-options'

const PROJECT = join(import.meta.dirname, '../..')
const CONFIG = join(PROJECT, '.dependency-cruiser.mjs')

/** An import that a law of `.dependency-cruiser.mjs` forbids. Paths are relative to the tree that was cruised. */
export interface Breach {
  law: string
  from: string
  to: string
}

/** All imports under `root` that break a law, in the order of their importers' paths. */
export async function breaches(root: string, folders: string[]): Promise<Breach[]> {
  const options = await extractDepcruiseOptions(CONFIG)
  const { output } = await cruise(folders, { ...options, baseDir: root, validate: true })
  return (output as ICruiseResult).summary.violations
    .map(({ rule, from, to }) => ({ law: rule.name, from, to }))
    .sort((a, b) => `${a.from}${a.law}${a.to}`.localeCompare(`${b.from}${b.law}${b.to}`))
}

/** The names of the laws as the configuration declares them. */
export async function lawNames(): Promise<string[]> {
  const { ruleSet } = await extractDepcruiseOptions(CONFIG)
  return (ruleSet?.forbidden ?? []).map((rule) => rule.name ?? '')
}
