import { join } from 'node:path'
import { type Suite, UsageError } from '@cloudphone/bench/harness/program'
import { setup as openDoorToPostgres } from '@cloudphone/testing/global-setup'
import { type Copy, copyProject } from './guards/copy.ts'
import type { Guard } from './guards/guard.ts'
import { guards as allGuards } from './guards/guards.ts'
import { runTests, type TestEnd } from './guards/trial.ts'

const PROJECT = join(import.meta.dirname, '../..')

/** What its removal came to. */
interface Removal {
  readonly guard: Guard
  /** The first test that went red; undefined: nobody noticed. */
  readonly noticed: TestEnd | undefined
  readonly seconds: number
}

/**
 * A mutant that the database or the loader refuses as such. Its red tests prove that the code needs the guard in order to
 * run, not that anybody looks whether the guard works.
 */
const NOT_A_MUTANT =
  /syntax error|SyntaxError|ReferenceError|Transform failed|no unique or exclusion constraint matching|could not determine data type|column .* does not exist/

/** Takes away one guard after the other and looks whether a test goes red: what is not tested is not there. */
export const guards: Suite = {
  summary: 'takes each guard of an invariant away and looks for the test that notices',
  options: {
    only: { default: '', help: 'guards whose name or file has this in it, such as "saga" or "lanes.ts"' },
  },
  run: async (task) => {
    const only = task.option('only')
    const chosen = allGuards.filter(({ name, file }) => name.includes(only) || file.includes(only))
    if (chosen.length === 0) throw new UsageError(`No guard has '${only}' in its name or file`)
    const startedMs = performance.now()
    const closePostgres = await openDoorToPostgres()
    const removals: Removal[] = []
    try {
      await using copy = await copyProject(PROJECT)
      task.progress(`${chosen.length} guards; first their tests with all guards in place`)
      await mustBeGreen(copy, chosen)
      for (const guard of chosen) {
        const removal = await remove(copy, guard)
        removals.push(removal)
        task.progress(lineOf(removal))
      }
    } finally {
      await closePostgres()
    }
    const survivors = removals.filter(({ noticed }) => noticed === undefined)
    return {
      figures: [
        {
          name: `guards taken away, of ${allGuards.length}`,
          ours: removals.length,
          wanted: { is: '>=', than: 1 },
        },
        { name: 'whose removal no test noticed', ours: survivors.length, wanted: { is: '<=', than: 0 } },
        { name: 'duration (min)', ours: (performance.now() - startedMs) / 60_000 },
      ],
      detail: tableOf(removals),
    }
  },
}

/** @throws Error when a test is red as it is, or a guard has none: then the drill would prove nothing. */
async function mustBeGreen(copy: Copy, chosen: readonly Guard[]): Promise<void> {
  const ends = await runTests(copy.root, {
    files: [...new Set(chosen.flatMap(({ tests }) => tests.files))],
    named: [...new Set(chosen.map(({ tests }) => tests.named))],
    bail: 'never',
  })
  const red = ends.filter(({ passed }) => !passed)
  if (red.length > 0)
    throw new Error(
      `The drill is void, since tests are red with all guards in place:\n${red.map(({ file, name, message }) => `${file}: ${name}: ${message}`).join('\n')}`,
    )
  for (const { name, tests } of chosen)
    for (const file of tests.files)
      if (!ends.some((end) => end.file === file && end.name.includes(tests.named)))
        throw new Error(`Guard '${name}': ${file} has no test named '${tests.named}'`)
}

async function remove(copy: Copy, guard: Guard): Promise<Removal> {
  const startedMs = performance.now()
  await using _removed = await copy.without(guard)
  const { files, named } = guard.tests
  const ends = await runTests(copy.root, { files, named: [named], bail: 'at the first' })
  const noticed = ends.find(({ passed }) => !passed)
  if (noticed !== undefined && NOT_A_MUTANT.test(noticed.message))
    throw new Error(
      `Guard '${guard.name}': without it nothing runs, which proves nothing: ${noticed.message}`,
    )
  return { guard, noticed, seconds: (performance.now() - startedMs) / 1_000 }
}

function lineOf({ guard, noticed, seconds }: Removal): string {
  const time = `${seconds.toFixed(1)} s`
  if (noticed === undefined) return `NOT NOTICED  ${guard.name} (${time}; ${guard.tests.files.join(', ')})`
  return `red  ${guard.name} (${time}): ${noticed.name}: ${noticed.message}`
}

function tableOf(removals: readonly Removal[]): string {
  const rows = removals.map(({ guard, noticed, seconds }) => [
    guard.name,
    guard.file,
    `${code(guard.find)} became ${guard.replace.trim() === '' ? 'nothing' : code(guard.replace)}`,
    noticed === undefined ? '**nobody noticed**' : `${noticed.file}: ${noticed.name}`,
    noticed === undefined ? '' : code(noticed.message),
    seconds.toFixed(1),
  ])
  const lines = [
    ['guard', 'file', 'what was taken away', 'test that went red', 'what it said', 's'],
    ['---', '---', '---', '---', '---', '---:'],
    ...rows,
  ]
  return lines
    .map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`)
    .join('\n')
}

const LONGEST_CODE = 160

/** As inline code on one line, cut where it gets long. */
function code(text: string): string {
  const line = text.replaceAll(/\s+/g, ' ').trim()
  const cut = line.length > LONGEST_CODE ? `${line.slice(0, LONGEST_CODE)} ...` : line
  return `\`\` ${cut} \`\``
}
