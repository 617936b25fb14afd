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

/** A column of a table. */
export interface Column<Row> {
  readonly title: string
  readonly of: (row: Row) => string | number | null | undefined
  /** Free text: it may be cut to fit. Everything else, such as an id, stands whole or below its row. */
  readonly cut?: true
}

/**
 * Rows as a table that fits the terminal. Where it is narrow, texts are cut with an ellipsis; where that is not enough, the
 * last columns move below their row. What somebody may have to copy is never cut.
 */
export function table<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  width = process.stdout.columns ?? 120,
): string {
  if (rows.length === 0) return '(none)'
  const cells = rows.map((row) => columns.map((column) => textOf(column.of(row))))
  const wanted = columns.map(({ title }, index) =>
    Math.max(stringWidth(title), ...cells.map((line) => stringWidth(line[index] ?? ''))),
  )
  const widths = fit(wanted, columns, width)
  const made = new Table({
    head: columns.slice(0, widths.length).map(({ title }) => styleText('bold', title)),
    colWidths: widths.map((one) => one + 2),
    chars: borderless,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 2 },
  })
  made.push(...cells.map((line) => line.slice(0, widths.length)))
  const [head = '', ...lines] = made
    .toString()
    .replaceAll(/[ \t]+$/gm, '')
    .split('\n')
  const below = cells.map((line) => remainder(line, columns, { shown: widths.length, width }))
  return [head, ...lines.flatMap((line, index) => [line, ...(below[index] ?? [])])].join('\n')
}

const indent = '    '
const longestBelow = 240

/** What has no room in its row: indented lines of titles and values. */
function remainder<Row>(
  line: readonly string[],
  columns: readonly Column<Row>[],
  { shown, width }: { shown: number; width: number },
): string[] {
  const values = columns
    .map(({ title, cut }, index) => ({ title, cut, value: line[index] ?? '', index }))
    .filter(({ index, value }) => index >= shown && value !== '-')
    .map(({ title, cut, value }) => {
      const text = cut && value.length > longestBelow ? `${value.slice(0, longestBelow - 1)}…` : value
      return `${title.toLowerCase()}: ${text}`
    })
  const lines: string[] = []
  let words = indent
  for (const word of values.join('  ').split(' ')) {
    if (words.trim() !== '' && stringWidth(words) + stringWidth(word) > width) {
      lines.push(words.trimEnd())
      words = indent
    }
    words += `${word} `
  }
  return words.trim() === '' ? lines : [...lines, words.trimEnd()]
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

const gap = 2
const narrowest = 12

/** The widths of the columns that stand in the row: all, or the first ones when even cut texts leave no room. */
function fit<Row>(wanted: readonly number[], columns: readonly Column<Row>[], width: number): number[] {
  for (let shown = wanted.length; ; shown -= 1) {
    const widths = wanted.slice(0, shown)
    let excess = widths.reduce((sum, one) => sum + one, 0) + gap * (shown - 1) - width
    while (excess > 0) {
      const widest = Math.max(...widths.filter((one, index) => columns[index]?.cut && one > narrowest))
      if (widest === Number.NEGATIVE_INFINITY) break
      const index = widths.findIndex((one, at) => columns[at]?.cut && one === widest)
      widths[index] = widest - 1
      excess -= 1
    }
    if (excess <= 0 || shown === 1) return widths
  }
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
