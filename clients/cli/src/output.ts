import { styleText } from 'node:util'
import Table from 'cli-table3'
import stringWidth from 'string-width'

/** Where a command writes: `--json` gives one JSON document on standard output, else tables and lines for people. */
export interface Output {
  readonly json: boolean
  /** The answer: its JSON, or what `human` makes of it. */
  answer<T>(value: T, human: (value: T) => string): void
  /** A line about what goes on, for people only; never in the way of JSON. */
  note(line: string): void
}

export function openOutput(options: {
  json: boolean
  stdout?: NodeJS.WritableStream
  stderr?: NodeJS.WritableStream
}): Output {
  const { json, stdout = process.stdout, stderr = process.stderr } = options
  return {
    json,
    answer: (value, human) => {
      stdout.write(`${json ? JSON.stringify(value, null, 2) : human(value)}\n`)
    },
    note: (line) => {
      if (!json) stderr.write(`${line}\n`)
    },
  }
}

/** A column of a table. The last one gives way when the terminal is narrow. */
export interface Column<Row> {
  readonly title: string
  readonly of: (row: Row) => string | number | null | undefined
}

/** Rows as a table that fits the terminal: cells that are too wide are cut with an ellipsis, widest column first. */
export function table<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  width = process.stdout.columns ?? 120,
): string {
  if (rows.length === 0) return '(none)'
  const cells = rows.map((row) => columns.map((column) => textOf(column.of(row))))
  const titles = columns.map((column) => column.title)
  const widths = fit(
    titles.map((title, index) =>
      Math.max(stringWidth(title), ...cells.map((line) => stringWidth(line[index] ?? ''))),
    ),
    width - 2 * (columns.length - 1),
  )
  const made = new Table({
    head: titles.map((title) => styleText('bold', title)),
    colWidths: widths.map((one) => one + 2),
    chars: borderless,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 2 },
  })
  made.push(...cells)
  return made.toString().replaceAll(/[ \t]+$/gm, '')
}

/** Names and values, one a line. */
export function facts(
  entries: readonly (readonly [name: string, value: string | number | null | undefined])[],
): string {
  const widest = Math.max(...entries.map(([name]) => stringWidth(name)))
  return entries
    .map(
      ([name, value]) =>
        `${styleText('bold', name)}${' '.repeat(widest - stringWidth(name) + 2)}${textOf(value)}`,
    )
    .join('\n')
}

function fit(wanted: readonly number[], available: number): number[] {
  const widths = [...wanted]
  let excess = widths.reduce((sum, one) => sum + one, 0) - available
  while (excess > 0) {
    const widest = Math.max(...widths)
    if (widest <= 8) break
    widths[widths.indexOf(widest)] = widest - 1
    excess -= 1
  }
  return widths
}

function textOf(value: string | number | null | undefined): string {
  // What others named must not move the cursor or colour the terminal.
  return value === null || value === undefined ? '-' : String(value).replaceAll(/\p{Cc}/gu, ' ')
}

const borderless = Object.fromEntries(
  [
    'top',
    'top-mid',
    'top-left',
    'top-right',
    'bottom',
    'bottom-mid',
    'bottom-left',
    'bottom-right',
    'left',
    'left-mid',
    'mid',
    'mid-mid',
    'right',
    'right-mid',
    'middle',
  ].map((part) => [part, '']),
)
