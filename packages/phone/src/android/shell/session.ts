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

  /** Runs a line, and the ones that were typed meanwhile and that no command has read. False when the session is over. */
  async #execute(first: string): Promise<boolean> {
    const ahead: string[] = []
    for (let source: string | undefined = first; source !== undefined; source = this.#nextOf(ahead)) {
      const running = { input: lineByLine(), abort: new AbortController() }
      for (const line of ahead.splice(0)) running.input.write(`${line}\n`)
      this.#running = running
      if (!(await this.#runOne(source, running))) return false
      for (let line = running.input.read(); line !== null; line = running.input.read())
        ahead.push(String(line).replace(/\n$/, ''))
      running.input.destroy()
      await this.#prompt().catch(() => undefined)
    }
    this.#running = undefined
    return true
  }

  #nextOf(ahead: string[]): string | undefined {
    for (let line = ahead.shift(); line !== undefined; line = ahead.shift()) {
      const source = this.#lines.command(line)
      if (source !== undefined) return source
    }
    return undefined
  }

  async #runOne(source: string, running: { input: PassThrough; abort: AbortController }): Promise<boolean> {
    const out = new Output(crlf(this.#io.stdout))
    const signal = AbortSignal.any([this.#io.signal, running.abort.signal])
    try {
      return await this.#shell.runLine(source, { stdin: running.input, out, err: out }, signal)
    } catch (error) {
      // ^C goes on with a prompt; a client that has gone ends the session; anything else is told.
      if (this.#io.signal.aborted) return false
      if (!running.abort.signal.aborted) await out.line(`/system/bin/sh: ${String(error)}`)
      return true
    }
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

const MAX_LINES_AHEAD = 10_000

/** Input that hands out one line at a time, as a terminal does: `head -n 1` leaves the next line to the shell. */
function lineByLine(): PassThrough {
  return new PassThrough({ readableObjectMode: true, readableHighWaterMark: MAX_LINES_AHEAD })
}

function empty(): Readable {
  return new PassThrough().end()
}
