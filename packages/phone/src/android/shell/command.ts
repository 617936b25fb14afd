import type { Readable, Writable } from 'node:stream'
import type { Internals } from '../internals.ts'

/** Everything one command gets. It answers its exit code. */
export interface CommandContext {
  readonly name: string
  /** Without the command's name. */
  readonly args: readonly string[]
  readonly stdin: Readable
  readonly out: Output
  readonly err: Output
  readonly signal: AbortSignal
  readonly cwd: string
  readonly env: ReadonlyMap<string, string>
  readonly phone: Internals
  /** Runs another command line in the same surroundings, as `sh -c` and `xargs` need it. */
  readonly shell: (line: string, args?: readonly string[]) => Promise<number>
}

export type Command = (context: CommandContext) => Promise<number> | number
export type CommandTable = Readonly<Record<string, Command>>

/** Nobody reads any more: the command ends as if by SIGPIPE. */
export class BrokenPipe extends Error {
  override readonly name = 'BrokenPipe'
}

/** An output that waits for its reader, so that no command fills memory. */
export class Output {
  readonly #stream: Writable
  #broken = false

  constructor(stream: Writable) {
    this.#stream = stream
    stream.on('error', () => {
      this.#broken = true
    })
    stream.once('close', () => {
      this.#broken = true
    })
  }

  /** Resolves when the reader is ready for more; throws `BrokenPipe` when there is none. */
  async write(data: string | Buffer): Promise<void> {
    if (this.#broken || this.#stream.destroyed) throw new BrokenPipe('Broken pipe')
    if (data.length === 0 || this.#stream.write(data)) return
    await new Promise<void>((resolve) => {
      const done = () => {
        this.#stream.off('drain', done).off('close', done).off('error', done)
        resolve()
      }
      this.#stream.once('drain', done).once('close', done).once('error', done)
    })
  }

  async line(text: string): Promise<void> {
    await this.write(`${text}\n`)
  }
}

/** The chunks of a stream, which stays open when reading stops early: it may belong to the next command. */
export function chunksOf(stream: Readable): AsyncIterable<Buffer> {
  return stream.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>
}

const MAX_LINE_BYTES = 1024 * 1024

/** The lines of a stream, without their ends; a line longer than 1 MiB comes in pieces. */
export async function* linesOf(stream: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of stream) {
    rest += decoder.decode(chunk, { stream: true })
    const lines = rest.split('\n')
    rest = lines.pop() ?? ''
    yield* lines
    if (rest.length > MAX_LINE_BYTES) {
      yield rest
      rest = ''
    }
  }
  if (rest !== '') yield rest
}

/** An absolute path for what a user typed. */
export function absolute(context: { cwd: string }, path: string): string {
  return path.startsWith('/') ? path : `${context.cwd === '/' ? '' : context.cwd}/${path}`
}

/**
 * Splits `-abc`, `-n 5`, `-n5` and `--` options from operands. Letters in `valued` take a value.
 * Undefined value means that it was missing.
 */
export function options(
  args: readonly string[],
  valued = '',
): { flags: Set<string>; values: Map<string, string | undefined>; operands: string[] } {
  const flags = new Set<string>()
  const values = new Map<string, string | undefined>()
  const operands: string[] = []
  const rest = [...args]
  for (let arg = rest.shift(); arg !== undefined; arg = rest.shift()) {
    if (arg === '--') {
      operands.push(...rest)
      break
    }
    if (!arg.startsWith('-') || arg === '-') {
      operands.push(arg)
      continue
    }
    if (arg.startsWith('--')) {
      flags.add(arg)
      continue
    }
    for (let i = 1; i < arg.length; i += 1) {
      const letter = arg.charAt(i)
      flags.add(letter)
      if (!valued.includes(letter)) continue
      values.set(letter, i + 1 < arg.length ? arg.slice(i + 1) : rest.shift())
      break
    }
  }
  return { flags, values, operands }
}
