import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join, relative } from 'node:path'

/** How one test ended. */
export interface TestEnd {
  readonly file: string
  /** Its suites and itself. */
  readonly name: string
  readonly passed: boolean
  /** The first line of what it said, when it failed. */
  readonly message: string
}

export interface Selection {
  readonly files: readonly string[]
  /** Parts of full names. */
  readonly named: readonly string[]
  /** What tests run after the first has failed. */
  readonly bail: 'at the first' | 'never'
}

/** Of vitest's JSON report, as far as it is read here. */
interface Report {
  readonly testResults: readonly {
    readonly name: string
    readonly message?: string
    readonly assertionResults: readonly {
      readonly status: string
      readonly ancestorTitles: readonly string[]
      readonly title: string
      readonly failureMessages?: readonly string[] | null
    }[]
  }[]
}

/**
 * No global set-up: the drill has one PostgreSQL for all runs, whose door the workers inherit. Nothing is tried again: a test
 * that goes red once has noticed.
 */
const CONFIG = {
  test: {
    include: ['**/*.test.ts'],
    exclude: ['**/node_modules/**'],
    passWithNoTests: false,
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    retry: 0,
  },
}

/** Longer than any test may take by itself. */
const PATIENCE_MS = 300_000
const SIGNALS = ['SIGINT', 'SIGTERM'] as const

/**
 * Runs tests of the copy with vitest and answers how each ended that ran.
 * @throws Error when a file could not even be loaded, or nothing came of the run.
 */
export async function runTests(root: string, { files, named, bail }: Selection): Promise<readonly TestEnd[]> {
  const report = join(root, '.guards-report.json')
  await rm(report, { force: true })
  const config = join(root, 'guards.vitest.config.mjs')
  await writeFile(config, `export default ${JSON.stringify(CONFIG)}\n`)
  const said = await vitest(root, [
    'run',
    '--config',
    config,
    '--reporter=json',
    `--outputFile=${report}`,
    `--bail=${bail === 'never' ? 0 : 1}`,
    '--testNamePattern',
    named.map((name) => name.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|'),
    ...files,
  ])
  const text = await readFile(report, 'utf8').catch(() => {
    throw new Error(`vitest wrote no report for ${files.join(', ')}:\n${said.slice(-2_000)}`)
  })
  const { testResults }: Report = JSON.parse(text)
  return testResults.flatMap(({ name: path, message, assertionResults }) => {
    const file = relative(root, path)
    // Not one test of it: it, or what it imports, is no program any more.
    if (assertionResults.length === 0 && message !== undefined && message !== '')
      throw new Error(`${file} could not be loaded: ${firstLine(message)}`)
    return assertionResults
      .filter(({ status }) => status === 'passed' || status === 'failed')
      .map(({ status, ancestorTitles, title, failureMessages }) => ({
        file,
        name: [...ancestorTitles, title].join(' '),
        passed: status === 'passed',
        message: firstLine(failureMessages?.[0] ?? ''),
      }))
  })
}

/** Runs vitest in the copy, with all that it starts in one process group, and answers what it said. */
async function vitest(root: string, args: readonly string[]): Promise<string> {
  const child = spawn(process.execPath, [join(root, 'node_modules/vitest/vitest.mjs'), ...args], {
    cwd: root,
    // CI: counts of the project's own runs are not to be touched. NODE_OPTIONS of whoever started us stay.
    env: { ...process.env, NO_COLOR: '1', CI: '' },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
  const endAll = (): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
    } catch (error) {
      // Everything has ended by itself.
      if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
    }
  }
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8')
    stream.on('data', (text: string) => {
      said += text
    })
  }
  // Whoever ends the drill ends this run, and its missing report ends the drill, which tidies up.
  for (const signal of SIGNALS) process.on(signal, endAll)
  const timer = setTimeout(endAll, PATIENCE_MS)
  try {
    await once(child, 'close')
    return said
  } finally {
    clearTimeout(timer)
    for (const signal of SIGNALS) process.off(signal, endAll)
    // A failed test may have left what it started.
    endAll()
  }
}

function firstLine(text: string): string {
  return (text.split('\n').find((line) => line.trim() !== '') ?? '').trim()
}
