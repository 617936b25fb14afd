import { PassThrough, type Readable, type Writable } from 'node:stream'
import { parse } from 'unbash'
import type { ShellIo } from '../android.ts'
import { chunksOf, Output } from './command.ts'
import type { Shell } from './shell.ts'

const MAX_SCRIPT_BYTES = 256 * 1024

/** Runs commands line by line from stdin without a terminal, as `adb shell < script` wants it. Answers the exit code. */
export async function runScript(shell: Shell, io: ShellIo): Promise<number> {
  const streams = { stdin: empty(), out: new Output(io.stdout), err: new Output(io.stderr) }
  const lines = new LineCollector()
  for await (const chunk of chunksOf(io.stdin)) {
    for (const line of lines.push(chunk)) {
      const source = lines.command(line)
      if (source !== undefined && !(await shell.runLine(source, streams, io.signal))) return shell.status
    }
  }
  const rest = lines.rest()
  if (rest !== '') await shell.runLine(rest, streams, io.signal)
  return shell.status
}

/** Cuts input into lines and joins those that need more to be a command. */
class LineCollector {
  #partial = ''
  #pending = ''

  push(chunk: Buffer): string[] {
    const lines = (this.#partial + chunk.toString()).split('\n')
    this.#partial = lines.pop() ?? ''
    return lines
  }

  /** A whole command, or undefined when it goes on in the next line. */
  command(line: string): string | undefined {
    const source = this.#pending === '' ? line : `${this.#pending}\n${line}`
    if (source.length < MAX_SCRIPT_BYTES && isUnfinished(source)) {
      this.#pending = source
      return undefined
    }
    this.#pending = ''
    return source
  }

  get continues(): boolean {
    return this.#pending !== ''
  }

  rest(): string {
    const rest = this.#pending === '' ? this.#partial : `${this.#pending}\n${this.#partial}`
    this.#pending = ''
    this.#partial = ''
    return rest
  }
}

function isUnfinished(source: string): boolean {
  return parse(source).errors?.some(({ message }) => /^(unterminated|expected)/.test(message)) ?? false
}

/**
 * A shell on a terminal: prompt, echo, backspace, ^U, ^C (ends the running command), ^D. What is typed while a command
 * runs is its input. Answers the exit code.
 */
export async function runInteractive(shell: Shell, io: ShellIo): Promise<number> {
  const terminal = new Terminal(shell, io)
  return await terminal.run()
}

class Terminal {
  readonly #shell: Shell
  readonly #io: ShellIo
  readonly #out: Output
  readonly #lines = new LineCollector()
  #line = ''
  #running: { input: PassThrough; abort: AbortController } | undefined

  constructor(shell: Shell, io: ShellIo) {
    this.#shell = shell
    this.#io = io
    this.#out = new Output(io.stdout)
  }

  async run(): Promise<number> {
    await this.#prompt()
    let ended: (() => void) | undefined
    const over = new Promise<void>((resolve) => {
      ended = resolve
    })
    const reading = this.#read(() => ended?.())
    await Promise.race([over, reading])
    return this.#shell.status
  }

  async #read(over: () => void): Promise<void> {
    for await (const chunk of chunksOf(this.#io.stdin)) {
      for (const char of chunk.toString()) {
        if (!(await this.#key(char, over))) return
      }
    }
    this.#running?.input.end()
  }

  /** False when the session is over. */
  async #key(char: string, over: () => void): Promise<boolean> {
    switch (char) {
      case '\r':
      case '\n':
        await this.#out.write('\r\n')
        return await this.#enter(over)
      case '\x03':
        await this.#out.write('^C\r\n')
        this.#line = ''
        this.#lines.rest()
        if (this.#running === undefined) await this.#prompt()
        else this.#interrupt(this.#running)
        return true
      case '\x04':
        if (this.#line !== '') return true
        if (this.#running !== undefined) this.#running.input.end()
        else {
          over()
          return false
        }
        return true
      case '\x7f':
      case '\b':
        if (this.#line !== '') await this.#out.write('\b \b')
        this.#line = [...this.#line].slice(0, -1).join('')
        return true
      case '\x15':
        await this.#out.write('\b \b'.repeat([...this.#line].length))
        this.#line = ''
        return true
      default:
        if (char < ' ' || this.#line.length > MAX_SCRIPT_BYTES) return true
        this.#line += char
        await this.#out.write(char)
        return true
    }
  }

  /** The signal tells the command, the closed input wakes it where it waits for more. */
  #interrupt(running: { input: PassThrough; abort: AbortController }): void {
    running.abort.abort()
    running.input.destroy()
  }

  async #enter(over: () => void): Promise<boolean> {
    const line = this.#line
    this.#line = ''
    if (this.#running !== undefined) {
      this.#running.input.write(`${line}\n`)
      return true
    }
    const source = this.#lines.command(line)
    if (source === undefined) {
      await this.#out.write('> ')
      return true
    }
    // Not awaited: keys typed meanwhile must reach the command, and ^C must end it.
    void this.#execute(source).then((goesOn) => {
      if (!goesOn) over()
    })
    return true
  }

  async #execute(source: string): Promise<boolean> {
    const input = new PassThrough()
    const abort = new AbortController()
    this.#running = { input, abort }
    const out = new Output(crlf(this.#io.stdout))
    const signal = AbortSignal.any([this.#io.signal, abort.signal])
    let goesOn = true
    try {
      goesOn = await this.#shell.runLine(source, { stdin: input, out, err: out }, signal)
    } catch {
      // Only an abort leaves a line this way: ^C goes on with a prompt, a client that has gone ends the session.
      goesOn = !this.#io.signal.aborted
    }
    this.#running = undefined
    input.destroy()
    if (goesOn) await this.#prompt().catch(() => undefined)
    return goesOn
  }

  async #prompt(): Promise<void> {
    await this.#out.write(`generic_x86:${this.#shell.cwd} $ `)
  }
}

/** A terminal shows a line end as carriage return and line feed. */
function crlf(target: Writable): PassThrough {
  const stream = new PassThrough({
    transform(chunk: Buffer, _encoding, done) {
      const text = chunk.toString('latin1').replace(/\r?\n/g, '\r\n')
      if (target.write(Buffer.from(text, 'latin1'))) done()
      else target.once('drain', done)
    },
  })
  stream.resume()
  return stream
}

function empty(): Readable {
  return new PassThrough().end()
}
