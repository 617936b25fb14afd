import { PhoneFsError } from '../../android.ts'
import {
  absolute,
  type Command,
  type CommandContext,
  type CommandTable,
  chunksOf,
  linesOf,
  options,
} from '../command.ts'

/** Runs over each file, or over stdin when there is none; says what cannot be read and goes on. */
async function overInputs(
  context: CommandContext,
  paths: readonly string[],
  act: (chunks: AsyncIterable<Buffer>, shown: string) => Promise<void>,
): Promise<number> {
  if (paths.length === 0) {
    await act(chunksOf(context.stdin), '-')
    return 0
  }
  let status = 0
  for (const shown of paths) {
    try {
      const chunks =
        shown === '-' ? chunksOf(context.stdin) : await context.phone.files.read(absolute(context, shown))
      await act(chunks as AsyncIterable<Buffer>, shown)
    } catch (error) {
      if (!(error instanceof PhoneFsError)) throw error
      status = 1
      await context.err.line(`${context.name}: ${shown}: ${error.message}`)
    }
  }
  return status
}

const cat: Command = async (context) =>
  await overInputs(context, options(context.args).operands, async (chunks) => {
    for await (const chunk of chunks) await context.out.write(chunk)
  })

const echo: Command = async ({ args, out }) => {
  const rest = [...args]
  let newline = '\n'
  let escapes = false
  for (let flag = rest[0]; flag !== undefined && /^-[neE]+$/.test(flag); flag = rest[0]) {
    if (flag.includes('n')) newline = ''
    if (flag.includes('e')) escapes = true
    rest.shift()
  }
  const text = rest.join(' ')
  await out.write((escapes ? unescapeText(text) : text) + newline)
  return 0
}

function unescapeText(text: string): string {
  const letters: Readonly<Record<string, string>> = {
    n: '\n',
    t: '\t',
    r: '\r',
    '\\': '\\',
    a: '\x07',
    b: '\b',
    e: '\x1b',
  }
  return text.replace(/\\(x[0-9a-fA-F]{1,2}|0[0-7]{1,3}|.)/gs, (all, code: string) => {
    if (code.startsWith('x') && code.length > 1)
      return String.fromCharCode(Number.parseInt(code.slice(1), 16))
    if (/^0[0-7]+$/.test(code)) return String.fromCharCode(Number.parseInt(code, 8))
    return letters[code] ?? all
  })
}

const printf: Command = async ({ args, out, err }) => {
  const [format, ...values] = args
  if (format === undefined) {
    await err.line('printf: usage: printf FORMAT [ARGUMENT...]')
    return 1
  }
  const rest = [...values]
  for (;;) {
    const before = rest.length
    await out.write(formatOnce(unescapeText(format), rest))
    // The format is used again as long as it takes arguments and there are some.
    if (rest.length === 0 || rest.length === before) return 0
  }
}

function formatOnce(format: string, rest: string[]): string {
  return format.replace(
    /%(-?)(0?)(\d{0,3})(?:\.\d+)?([sdxuc%])/g,
    (_all, minus: string, zero: string, width: string, kind: string) => {
      if (kind === '%') return '%'
      const value = rest.shift() ?? (kind === 's' || kind === 'c' ? '' : '0')
      const text = kind === 's' ? value : kind === 'c' ? value.slice(0, 1) : numeric(value, kind)
      return minus === '-'
        ? text.padEnd(Number(width))
        : text.padStart(Number(width), zero === '0' ? '0' : ' ')
    },
  )
}

function numeric(value: string, kind: string): string {
  const number = Math.trunc(Number(value)) || 0
  return kind === 'x' ? number.toString(16) : String(number)
}

/** A regular expression a user typed; `undefined` when it is none or when it could run for ever. */
function compile(pattern: string, flags: ReadonlySet<string>): RegExp | undefined {
  if (pattern.length > 500) return undefined
  let source = pattern
  if (flags.has('F')) source = pattern.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
  // Basic expressions write the operators with a backslash and take them literally without.
  else if (!flags.has('E'))
    source = pattern.replace(
      /\\([+?|(){}])|([+?|(){}])/g,
      (_all, operator?: string, literal?: string) => operator ?? `\\${literal}`,
    )
  // A repeated group that itself repeats backtracks exponentially.
  if (/[*+}]\)[*+{]/.test(source)) return undefined
  if (flags.has('w')) source = `\\b(?:${source})\\b`
  if (flags.has('x')) source = `^(?:${source})$`
  try {
    return new RegExp(source, flags.has('i') ? 'i' : '')
  } catch {
    return undefined
  }
}

const grep: Command = async (context) => {
  const { flags, values, operands } = options(context.args, 'emABC')
  const pattern = values.get('e') ?? operands.shift()
  if (context.name.endsWith('egrep')) flags.add('E')
  const expression = pattern === undefined ? undefined : compile(pattern, flags)
  if (expression === undefined) {
    await context.err.line(`grep: bad pattern '${pattern ?? ''}'`)
    return 2
  }
  const limit = Number(values.get('m') ?? Number.POSITIVE_INFINITY)
  let matches = 0
  const status = await overInputs(context, operands, async (chunks, shown) => {
    let count = 0
    let number = 0
    const prefix = operands.length > 1 && !flags.has('h') ? `${shown}:` : ''
    for await (const line of linesOf(chunks)) {
      number += 1
      if (number % 1000 === 0) context.signal.throwIfAborted()
      if (expression.test(line.slice(0, 10_000)) === flags.has('v')) continue
      count += 1
      if (flags.has('q')) break
      if (flags.has('l')) {
        await context.out.line(shown)
        break
      }
      if (flags.has('o')) await context.out.line(prefix + (expression.exec(line)?.[0] ?? ''))
      else if (!flags.has('c'))
        await context.out.line(`${prefix}${flags.has('n') ? `${number}:` : ''}${line}`)
      if (count >= limit) break
    }
    if (flags.has('c')) await context.out.line(`${prefix}${count}`)
    matches += count
  })
  return status !== 0 ? 2 : matches > 0 ? 0 : 1
}

const head: Command = async (context) => {
  const args = context.args.map((arg) => (/^-\d+$/.test(arg) ? `-n${arg.slice(1)}` : arg))
  const { values, operands } = options(args, 'nc')
  const bytes = values.get('c')
  const lines = Number(values.get('n') ?? 10)
  return await overInputs(context, operands, async (chunks) => {
    if (bytes !== undefined) return await headBytes(context, chunks, Number(bytes))
    let left = lines
    if (left <= 0) return
    for await (const line of linesOf(chunks)) {
      await context.out.line(line)
      left -= 1
      if (left <= 0) return
    }
  })
}

async function headBytes(
  context: CommandContext,
  chunks: AsyncIterable<Buffer>,
  count: number,
): Promise<void> {
  let left = count
  if (left <= 0) return
  for await (const chunk of chunks) {
    await context.out.write(chunk.subarray(0, left))
    left -= chunk.length
    if (left <= 0) return
  }
}

const tail: Command = async (context) => {
  const args = context.args.map((arg) => (/^-\d+$/.test(arg) ? `-n${arg.slice(1)}` : arg))
  const { values, operands } = options(args, 'nc')
  const wanted = values.get('n') ?? '10'
  const count = Math.min(100_000, Math.abs(Number(wanted)) || 0)
  return await overInputs(context, operands, async (chunks) => {
    let number = 0
    let last: string[] = []
    for await (const line of linesOf(chunks)) {
      number += 1
      if (wanted.startsWith('+')) {
        if (number >= count) await context.out.line(line)
        continue
      }
      last.push(line)
      if (last.length > count * 2 + 100) last = last.slice(-count)
    }
    if (!wanted.startsWith('+') && count > 0)
      for (const line of last.slice(-count)) await context.out.line(line)
  })
}

const wc: Command = async (context) => {
  const { flags, operands } = options(context.args)
  return await overInputs(context, operands, async (chunks, shown) => {
    let [lines, words, bytes] = [0, 0, 0]
    let inWord = false
    for await (const chunk of chunks) {
      bytes += chunk.length
      for (const byte of chunk) {
        if (byte === 10) lines += 1
        const space = byte === 32 || (byte >= 9 && byte <= 13)
        if (!space && !inWord) words += 1
        inWord = !space
      }
    }
    const all = !['l', 'w', 'c'].some((flag) => flags.has(flag))
    const shownCounts = [
      ...(all || flags.has('l') ? [lines] : []),
      ...(all || flags.has('w') ? [words] : []),
      ...(all || flags.has('c') ? [bytes] : []),
    ]
    await context.out.line(shownCounts.join(' ') + (shown === '-' ? '' : ` ${shown}`))
  })
}

const MAX_SORT_BYTES = 16 * 1024 * 1024

const sort: Command = async (context) => {
  const { flags, operands } = options(context.args, 'kt')
  const lines: string[] = []
  let size = 0
  const status = await overInputs(context, operands, async (chunks) => {
    for await (const line of linesOf(chunks)) {
      size += line.length
      if (size > MAX_SORT_BYTES) throw new PhoneFsError('EINVAL', 'Out of memory')
      lines.push(line)
    }
  })
  lines.sort(
    (a, b) =>
      (flags.has('n') ? (Number.parseFloat(a) || 0) - (Number.parseFloat(b) || 0) : 0) ||
      (a < b ? -1 : a > b ? 1 : 0),
  )
  if (flags.has('r')) lines.reverse()
  for (const [i, line] of lines.entries())
    if (!flags.has('u') || line !== lines[i - 1]) await context.out.line(line)
  return status
}

const tee: Command = async (context) => {
  const { operands, flags } = options(context.args)
  const files = []
  for (const shown of operands) {
    const path = absolute(context, shown)
    files.push(
      flags.has('a')
        ? await context.phone.files.append(path)
        : await context.phone.files.write(path, { mode: 0o660 }),
    )
  }
  for await (const chunk of chunksOf(context.stdin)) {
    await context.out.write(chunk)
    for (const file of files)
      if (!file.write(chunk))
        await new Promise<void>((resolve) =>
          file.once('drain', () => resolve()).once('close', () => resolve()),
        )
  }
  for (const file of files)
    await new Promise<void>((resolve, reject) => file.once('error', reject).end(() => resolve()))
  return 0
}

const seq: Command = async ({ args, out, signal }) => {
  const numbers = args.map(Number)
  const [first = 1, second, third] = numbers
  const [from, step, to] =
    third !== undefined
      ? [first, second ?? 1, third]
      : second !== undefined
        ? [first, 1, second]
        : [1, 1, first]
  if (![from, step, to].every(Number.isFinite) || step === 0) return 1
  for (let value = from; step > 0 ? value <= to : value >= to; value += step) {
    if (value % 1024 === 0) {
      // Nobody may read: without a pause, `seq 1e12 > /dev/null` would own the event loop.
      await new Promise<void>((resolve) => setImmediate(resolve))
      signal.throwIfAborted()
    }
    await out.line(String(value))
  }
  return 0
}

export const textCommands: CommandTable = {
  cat,
  echo,
  printf,
  grep,
  egrep: grep,
  head,
  tail,
  wc,
  sort,
  tee,
  seq,
}
