import { readFile, writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { type Figure, judge, type Row } from './figure.ts'
import { machineFacts } from './machine.ts'
import { drawTable, markdownTable } from './table.ts'

/** What a suite was asked and where it tells how it goes. */
export interface Task {
  /** The value of each option that the suite declares. */
  option(name: string): string
  /** As `option`, a whole number. @throws UsageError */
  number(name: string): number
  /** Whether a switch was given. */
  isOn(name: string): boolean
  /** One line on standard error. */
  progress(line: string): void
}

export interface Findings {
  readonly figures: readonly Figure[]
  /** What the reader should know besides, such as the version of a server or a seed. */
  readonly facts?: Readonly<Record<string, string>>
  /** Markdown that a report has below the figures, such as a table of what they count. */
  readonly detail?: string
}

/** One set of figures, or one drill. */
export interface Suite {
  readonly summary: string
  readonly options?: Readonly<Record<string, { readonly default: string; readonly help: string }>>
  /** Flags without a value, with their help. */
  readonly switches?: Readonly<Record<string, string>>
  run(task: Task): Promise<Findings>
}

export interface Program {
  /** As it is called: `npm run bench`. */
  readonly command: string
  readonly suites: Readonly<Record<string, Suite>>
}

/** A call that cannot be carried out: one line for the user. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/**
 * Runs the suite that the arguments name, prints its table, and answers the exit code: 0, 1 when a figure misses what
 * is wanted, 2 for wrong usage.
 */
export async function runProgram(program: Program, argv: readonly string[]): Promise<number> {
  try {
    return await runNamed(program, argv)
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    process.stderr.write(`${error.message}\n`)
    return 2
  }
}

async function runNamed(program: Program, argv: readonly string[]): Promise<number> {
  const [name] = argv
  if (name === undefined || name === '--help' || name === '-h') {
    process.stdout.write(helpOf(program))
    return name === undefined ? 2 : 0
  }
  const suite = suiteNamed(program, name)
  const { values, switches, help } = flagsOf(suite, argv.slice(1))
  if (help) {
    process.stdout.write(helpOf(program))
    return 0
  }
  const machine = machineFacts()
  const { figures, facts, detail } = await suite.run(taskOf(suite, values, switches))
  const rows = figures.map(judge)
  const all = { ...machine, ...facts, command: [program.command, '--', ...argv].join(' ') }
  process.stdout.write(`${factLines(all)}\n\n${drawTable(rows)}\n`)
  if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(rows, null, 2)}\n`)
  if (values.report !== undefined) await writeReport(values.report, name, all, rows, detail)
  const missed = rows.filter((row) => !row.holds)
  process.stdout.write(missed.length === 0 ? '\nAll hold.\n' : `\n${missed.length} missed.\n`)
  return missed.length === 0 ? 0 : 1
}

function suiteNamed(program: Program, name: string): Suite {
  const suite = Object.hasOwn(program.suites, name) ? program.suites[name] : undefined
  if (suite !== undefined) return suite
  throw new UsageError(
    `${program.command}: there is no '${name}'; there are ${Object.keys(program.suites).join(', ')}`,
  )
}

function flagsOf(
  suite: Suite,
  args: readonly string[],
): { values: Record<string, string | undefined>; switches: ReadonlySet<string>; help: boolean } {
  const text = { type: 'string' } as const
  const own = Object.fromEntries(Object.keys(suite.options ?? {}).map((name) => [name, text]))
  const onOff = { type: 'boolean' } as const
  const ownSwitches = Object.fromEntries(Object.keys(suite.switches ?? {}).map((name) => [name, onOff]))
  try {
    const { values } = parseArgs({
      args: [...args],
      options: { ...own, ...ownSwitches, json: text, report: text, help: { type: 'boolean', short: 'h' } },
    })
    const { help = false, ...rest } = values
    const given: Record<string, string | boolean | undefined> = rest
    const texts = Object.entries(given).flatMap(([name, value]) =>
      typeof value === 'string' ? [[name, value] as const] : [],
    )
    const switches = new Set(Object.keys(given).filter((name) => given[name] === true))
    return { values: Object.fromEntries(texts), switches, help: help === true }
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
}

function taskOf(
  suite: Suite,
  values: Record<string, string | undefined>,
  switches: ReadonlySet<string>,
): Task {
  const option = (name: string): string => {
    const declared = suite.options?.[name]
    if (declared === undefined) throw new Error(`the suite declares no option '${name}'`)
    return values[name] ?? declared.default
  }
  return {
    option,
    isOn: (name) => switches.has(name),
    number: (name) => {
      const value = Number(option(name))
      if (Number.isSafeInteger(value) && value >= 0) return value
      throw new UsageError(`--${name} must be a whole number from 0 on, not '${option(name)}'`)
    },
    progress: (line) => process.stderr.write(`${line}\n`),
  }
}

function helpOf({ command, suites }: Program): string {
  const lines = Object.entries(suites).flatMap(([name, { summary, options = {}, switches = {} }]) => [
    `  ${name.padEnd(12)} ${summary}`,
    ...Object.entries(options).map(
      ([flag, one]) => `      --${flag} VALUE  ${one.help}${one.default === '' ? '' : ` (${one.default})`}`,
    ),
    ...Object.entries(switches).map(([flag, help]) => `      --${flag}  ${help}`),
  ])
  return `${[
    `Usage: ${command} -- NAME [--json FILE] [--report FILE]`,
    '',
    ...lines,
    '',
    '  --json FILE    writes the rows: [{name, ours, peer, ratio, wanted, holds}]',
    '  --report FILE  replaces the section <!-- NAME --> ... <!-- /NAME --> of a Markdown file',
    '',
    'Exit code 1 when a figure misses what is wanted, 2 for wrong usage.',
  ].join('\n')}\n`
}

function factLines(facts: Readonly<Record<string, string>>): string {
  const width = Math.max(...Object.keys(facts).map((key) => key.length))
  return Object.entries(facts)
    .map(([key, value]) => `${key.padEnd(width)}  ${value}`)
    .join('\n')
}

async function writeReport(
  path: string,
  name: string,
  facts: Readonly<Record<string, string>>,
  rows: readonly Row[],
  detail = '',
): Promise<void> {
  const page = await readFile(path, 'utf8')
  const [open, close] = [`<!-- ${name} -->`, `<!-- /${name} -->`]
  const [start, end] = [page.indexOf(open), page.indexOf(close)]
  if (start === -1 || end < start) throw new UsageError(`${path} has no section ${open} ... ${close}`)
  const list = Object.entries(facts).map(([key, value]) => `- ${key}: ${value}`)
  const below = detail === '' ? [] : [detail, '']
  const section = [open, '', ...list, '', markdownTable(rows), '', ...below, ''].join('\n')
  await writeFile(path, page.slice(0, start) + section + page.slice(end))
}
