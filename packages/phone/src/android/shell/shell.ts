import { PassThrough, Readable, Writable } from 'node:stream'
import {
  type ArithmeticExpression,
  type Case,
  type Command as CommandNode,
  type For,
  type If,
  type Node,
  type ParsedScript,
  type Pipeline,
  parse,
  type Redirect,
  type Statement,
  type While,
} from 'unbash'
import { PhoneFsError, type ShellIo } from '../android.ts'
import type { Internals } from '../internals.ts'
import { evaluate } from './arithmetic.ts'
import { absolute, BrokenPipe, type CommandContext, type CommandTable, Output } from './command.ts'
import {
  type Expander,
  ExpansionError,
  expandText,
  expandWords,
  MAX_WORD_BYTES,
  patternSource,
} from './expand.ts'
import { openRedirect, type Streams } from './redirect.ts'
import {
  assignVariable,
  copyOf,
  environmentOf,
  exportVariable,
  initialState,
  readVariable,
  type ShellState,
} from './shell-state.ts'

/* The grammar is unbash's (a maintained parser of the shell language that bounds its own recursion); carrying it out
 * is ours. What mksh has and this has not (background jobs, here documents, arrays) is refused in words. */

/** Leaves the shell, a loop or a function; `abandon` gives up the line, as a failed expansion does. */
class Leave extends Error {
  readonly how: 'exit' | 'break' | 'continue' | 'return' | 'abandon'
  readonly status: number
  constructor(how: Leave['how'], status: number) {
    super(how)
    this.how = how
    this.status = status
  }
}

const MAX_DEPTH = 48
const MAX_SUBSTITUTION_BYTES = MAX_WORD_BYTES
/** After so many commands without one that waits, the event loop gets its turn: `while :; do :; done` must not own the host. */
const YIELD_EVERY = 32

/** A running shell: its variables, its directory, and how it carries out what was parsed. */
export class Shell implements Expander {
  readonly #phone: Internals
  readonly #commands: CommandTable
  #signal: AbortSignal
  #errors: Output | undefined
  readonly #pid: number
  readonly #depth: number
  readonly #state: ShellState
  readonly #steps: { count: number }

  constructor(options: {
    phone: Internals
    commands: CommandTable
    signal: AbortSignal
    state?: ShellState
    depth?: number
    steps?: { count: number }
    pid?: number
    errors?: Output | undefined
  }) {
    this.#phone = options.phone
    this.#pid = options.pid ?? options.phone.processes.takePid()
    this.#errors = options.errors
    this.#commands = options.commands
    this.#signal = options.signal
    this.#depth = options.depth ?? 0
    this.#state = options.state ?? initialState(options.phone)
    this.#steps = options.steps ?? { count: 0 }
  }

  get fs() {
    return this.#phone.files
  }

  get cwd(): string {
    return this.#state.cwd
  }

  get status(): number {
    return this.#state.status
  }

  /** Runs a script to its end; `exit` ends it early. Rejects only when the signal fired. */
  async run(source: string, io: Pick<ShellIo, 'stdin' | 'stdout' | 'stderr'>): Promise<number> {
    this.#errors = new Output(io.stderr)
    return await this.#runSource(source, { stdin: io.stdin, out: new Output(io.stdout), err: this.#errors })
  }

  /** Runs one line of an interactive session; true when the session goes on. */
  async runLine(source: string, io: Streams, signal: AbortSignal): Promise<boolean> {
    this.#signal = signal
    this.#errors = io.err
    try {
      await this.#script(source, io)
      return true
    } catch (error) {
      if (error instanceof BrokenPipe) return false
      if (error instanceof ExpansionError) {
        await this.#fail(io, error.message, 1)
        return true
      }
      if (!(error instanceof Leave)) throw error
      this.#state.status = error.status
      return error.how !== 'exit'
    }
  }

  async #runSource(source: string, streams: Streams): Promise<number> {
    try {
      await this.#script(source, streams)
    } catch (error) {
      if (error instanceof Leave) this.#state.status = error.status
      else if (error instanceof ExpansionError) await this.#fail(streams, error.message, 1)
      else if (error instanceof BrokenPipe) this.#state.status = 141
      else throw error
    }
    return this.#state.status
  }

  async #script(source: string, streams: Streams): Promise<void> {
    const script = parse(source)
    const problem = script.errors?.[0]
    if (problem !== undefined) {
      this.#state.status = 1
      await streams.err.line(`/system/bin/sh: syntax error: ${problem.message}`)
      return
    }
    await this.#statements(script.commands, streams)
  }

  async #statements(statements: readonly Statement[], streams: Streams): Promise<void> {
    for (const statement of statements) await this.#node(statement, streams)
  }

  async #node(node: Node, streams: Streams): Promise<void> {
    this.#signal.throwIfAborted()
    switch (node.type) {
      case 'Statement':
        if (node.background) return await this.#fail(streams, "syntax error: unexpected '&'", 1)
        return await this.#redirected(node.redirects, streams, (inner) => this.#node(node.command, inner))
      case 'Command':
        return await this.#command(node, streams)
      case 'Pipeline':
        return await this.#pipeline(node, streams)
      case 'AndOr':
        return await this.#andOr(node, streams)
      case 'CompoundList':
      case 'BraceGroup':
        return await this.#statements(
          node.type === 'BraceGroup' ? node.body.commands : node.commands,
          streams,
        )
      case 'Subshell': {
        const child = this.#fork()
        this.#state.status = await child.#guarded(() => child.#node(node.body, streams), streams)
        return
      }
      case 'If':
        return await this.#if(node, streams)
      case 'For':
        return await this.#for(node, streams)
      case 'While':
        return await this.#while(node, streams)
      case 'Case':
        return await this.#case(node, streams)
      case 'Function':
        this.#state.functions.set(node.name.value, node.body)
        this.#state.status = 0
        return
      default:
        return await this.#fail(streams, `syntax error: ${node.type} is not supported by this shell`, 1)
    }
  }

  async #andOr(node: { commands: Node[]; operators: ('&&' | '||')[] }, streams: Streams): Promise<void> {
    for (const [i, command] of node.commands.entries()) {
      const operator = i === 0 ? undefined : node.operators[i - 1]
      if (operator === '&&' && this.#state.status !== 0) continue
      if (operator === '||' && this.#state.status === 0) continue
      await this.#node(command, streams)
    }
  }

  async #pipeline(node: Pipeline, streams: Streams): Promise<void> {
    const { commands } = node
    if (commands.length === 1 && commands[0] !== undefined) await this.#node(commands[0], streams)
    else await this.#piped(commands, streams)
    if (node.negated) this.#state.status = this.#state.status === 0 ? 1 : 0
  }

  async #piped(commands: readonly Node[], streams: Streams): Promise<void> {
    let stdin = streams.stdin
    const running = commands.map(async (command, i) => {
      const input = stdin
      const last = i === commands.length - 1
      const pipe = last ? undefined : new PassThrough()
      if (pipe !== undefined) stdin = pipe
      const child = this.#fork()
      const inner = { ...streams, stdin: input, out: pipe === undefined ? streams.out : new Output(pipe) }
      try {
        return await child.#guarded(() => child.#node(command, inner), inner)
      } finally {
        pipe?.end()
        // The reader has gone: whoever still writes to it must notice.
        if (i > 0) input.destroy()
      }
    })
    const statuses = await Promise.all(running)
    this.#state.status = statuses.at(-1) ?? 0
  }

  /** Runs a part of a subshell: its `exit` ends the part only. */
  async #guarded(body: () => Promise<void>, streams: Streams): Promise<number> {
    try {
      await body()
    } catch (error) {
      if (error instanceof Leave) this.#state.status = error.status
      else if (error instanceof BrokenPipe) this.#state.status = 141
      else if (error instanceof ExpansionError) await this.#fail(streams, error.message, 1)
      else throw error
    }
    return this.#state.status
  }

  async #if(node: If, streams: Streams): Promise<void> {
    await this.#node(node.clause, streams)
    if (this.#state.status === 0) await this.#node(node.then, streams)
    else if (node.else !== undefined) await this.#node(node.else, streams)
    else this.#state.status = 0
  }

  async #for(node: For, streams: Streams): Promise<void> {
    const values = await expandWords(node.wordlist, this)
    for (const value of values) {
      this.assign(node.name.value, value)
      if ((await this.#loopBody(node.body, streams)) === 'break') return
    }
  }

  async #while(node: While, streams: Streams): Promise<void> {
    for (;;) {
      await this.#breathe()
      await this.#node(node.clause, streams)
      if ((this.#state.status === 0) !== (node.kind === 'while')) {
        this.#state.status = 0
        return
      }
      if ((await this.#loopBody(node.body, streams)) === 'break') return
    }
  }

  async #loopBody(body: Node, streams: Streams): Promise<'break' | 'continue'> {
    try {
      await this.#node(body, streams)
    } catch (error) {
      if (!(error instanceof Leave) || (error.how !== 'break' && error.how !== 'continue')) throw error
      return error.how
    }
    return 'continue'
  }

  async #case(node: Case, streams: Streams): Promise<void> {
    const text = await expandText(node.word, this)
    for (const item of node.items) {
      for (const pattern of item.pattern) {
        const source = patternSource(await expandText(pattern, this))
        if (new RegExp(`^${source}$`, 's').test(text)) return await this.#node(item.body, streams)
      }
    }
    this.#state.status = 0
  }

  async #command(node: CommandNode, streams: Streams): Promise<void> {
    await this.#breathe()
    try {
      const words = node.name === undefined ? node.suffix : [node.name, ...node.suffix]
      const [name, ...args] = await expandWords(words, this)
      const assignments = await this.#assignments(node)
      if (name === undefined) {
        for (const [key, value] of assignments) this.assign(key, value)
        return await this.#redirected(node.redirects, streams, async () => {
          if (words.length === 0) this.#state.status = 0
        })
      }
      await this.#redirected(node.redirects, streams, (inner) =>
        this.#call({ name, args, assignments }, inner),
      )
    } catch (error) {
      if (!(error instanceof ExpansionError)) throw error
      await this.#fail(streams, error.message, 1)
      // POSIX 2.8.1: an expansion error ends a script. Going on would loop for ever on `while :; do x=$x$x; done`.
      throw new Leave('abandon', 1)
    }
  }

  async #assignments(node: CommandNode): Promise<[string, string][]> {
    const found: [string, string][] = []
    for (const { name, value, array, append } of node.prefix) {
      if (name === undefined || array !== undefined)
        throw new ExpansionError('arrays are not supported by this shell')
      const text = value === undefined ? '' : await expandText(value, this)
      found.push([name, append ? `${this.variable(name) ?? ''}${text}` : text])
    }
    return found
  }

  async #call(
    call: { name: string; args: readonly string[]; assignments: readonly [string, string][] },
    streams: Streams,
  ): Promise<void> {
    const body = this.#state.functions.get(call.name)
    if (body !== undefined) return await this.#function(body, call.args, streams)
    if (await this.#builtin(call.name, call.args, streams)) return
    const env = environmentOf(this.#state, call.assignments)
    const name = call.name.startsWith('/') ? await this.#commandAt(call.name) : call.name
    const command =
      name !== undefined && Object.hasOwn(this.#commands, name) ? this.#commands[name] : undefined
    if (command === undefined) return await this.#notFound(call.name, streams)
    const context: CommandContext = {
      name: call.name,
      args: call.args,
      stdin: streams.stdin,
      out: streams.out,
      err: streams.err,
      signal: this.#signal,
      cwd: this.#state.cwd,
      env,
      phone: this.#phone,
      shell: async (line, args = []) => {
        const child = this.#fork()
        child.#state.args = args
        return await child.#runSource(line, streams)
      },
    }
    this.#state.status = await this.#carryOut(command, context)
  }

  async #carryOut(
    command: (context: CommandContext) => Promise<number> | number,
    context: CommandContext,
  ): Promise<number> {
    try {
      return await command(context)
    } catch (error) {
      if (error instanceof BrokenPipe) return 141
      if (!(error instanceof PhoneFsError)) throw error
      await context.err.line(`${context.name}: ${error.message}`)
      return 1
    }
  }

  async #notFound(name: string, streams: Streams): Promise<void> {
    const stat = name.includes('/')
      ? await this.fs.stat(absolute(this, name)).catch(() => undefined)
      : undefined
    if (stat !== undefined) return await this.#fail(streams, `${name}: can't execute: Permission denied`, 126)
    await this.#fail(streams, `${name}: inaccessible or not found`, 127)
  }

  async #commandAt(path: string): Promise<string | undefined> {
    const real = await this.fs.realpath(path).catch(() => path)
    return real.startsWith('/system/bin/') ? real.slice('/system/bin/'.length) : undefined
  }

  async #function(body: Node, args: readonly string[], streams: Streams): Promise<void> {
    if (this.#depth >= MAX_DEPTH) throw new ExpansionError('function nested too deeply')
    const state = { ...this.#state, args: [this.#state.args[0] ?? '', ...args] }
    const child = new Shell({ ...this.#family(), state, depth: this.#depth + 1 })
    try {
      await child.#node(body, streams)
    } catch (error) {
      if (!(error instanceof Leave) || error.how !== 'return') throw error
      child.#state.status = error.status
    }
    this.#state.cwd = child.#state.cwd
    this.#state.status = child.#state.status
  }

  /** Commands that change the shell itself; true when it was one. */
  async #builtin(name: string, args: readonly string[], streams: Streams): Promise<boolean> {
    const [first] = args
    const status = first !== undefined && /^\d+$/.test(first) ? Number(first) & 0xff : this.#state.status
    switch (name) {
      case 'exit':
      case 'return':
        throw new Leave(name, status)
      case 'break':
      case 'continue':
        throw new Leave(name, 0)
      case 'cd':
        await this.#changeDirectory(first ?? '/', streams)
        return true
      case 'export':
        for (const each of args) exportVariable(this.#state, each)
        break
      case 'unset':
        for (const each of args) this.#state.variables.delete(each)
        break
      case 'shift':
        this.#state.args = this.#state.args.slice(Number(first ?? 1))
        break
      case 'set':
        if (first === '--') this.#state.args = args.slice(1)
        else if (first === undefined)
          for (const [key, value] of [...this.#state.variables].sort())
            await streams.out.line(`${key}=${value}`)
        break
      case 'eval':
        await this.#script(args.join(' '), streams)
        return true
      case 'exec':
        if (first === undefined) break
        await this.#call({ name: first, args: args.slice(1), assignments: [] }, streams)
        throw new Leave('exit', this.#state.status)
      default:
        return false
    }
    this.#state.status = 0
    return true
  }

  async #changeDirectory(target: string, streams: Streams): Promise<void> {
    try {
      const path = await this.fs.realpath(absolute(this, target))
      const stat = await this.fs.stat(path)
      if (stat === undefined) return await this.#fail(streams, `cd: ${target}: No such file or directory`, 2)
      if ((stat.mode & 0o170000) !== 0o040000)
        return await this.#fail(streams, `cd: ${target}: Not a directory`, 2)
      // The typed path stays as the user knows it (`/sdcard`), unless it climbs.
      this.#state.cwd = target.includes('..') ? path : absolute(this, target).replace(/\/+$/, '') || '/'
      this.assign('PWD', this.#state.cwd)
      this.#state.status = 0
    } catch (error) {
      if (!(error instanceof PhoneFsError)) throw error
      await this.#fail(streams, `cd: ${target}: ${error.message}`, 2)
    }
  }

  async #redirected(
    redirects: readonly Redirect[],
    streams: Streams,
    body: (inner: Streams) => Promise<void>,
  ): Promise<void> {
    if (redirects.length === 0) return await body(streams)
    const opened: Writable[] = []
    let inner = streams
    try {
      for (const redirect of redirects) inner = await openRedirect(redirect, inner, { shell: this, opened })
    } catch (error) {
      for (const each of opened) each.destroy()
      if (!(error instanceof PhoneFsError)) throw error
      return await this.#fail(streams, error.message, 1)
    }
    try {
      await body(inner)
    } finally {
      for (const each of opened) await this.#finish(each, streams)
    }
  }

  async #finish(file: Writable, streams: Streams): Promise<void> {
    const error = await new Promise<Error | null | undefined>((resolve) => {
      if (file.errored) resolve(file.errored)
      else file.once('error', resolve).end(() => resolve(undefined))
    })
    if (error) await this.#fail(streams, error.message, 1)
  }

  async #fail(streams: Streams, message: string, status: number): Promise<void> {
    this.#state.status = status
    await streams.err.line(`/system/bin/sh: ${message}`)
  }

  async #breathe(): Promise<void> {
    this.#steps.count += 1
    if (this.#steps.count % YIELD_EVERY === 0) await new Promise<void>((resolve) => setImmediate(resolve))
    this.#signal.throwIfAborted()
  }

  #family() {
    return {
      phone: this.#phone,
      commands: this.#commands,
      signal: this.#signal,
      steps: this.#steps,
      pid: this.#pid,
      errors: this.#errors,
    }
  }

  #fork(): Shell {
    if (this.#depth >= MAX_DEPTH) throw new ExpansionError('subshells nested too deeply')
    return new Shell({ ...this.#family(), state: copyOf(this.#state), depth: this.#depth + 1 })
  }

  variable(name: string): string | undefined {
    return name === '$' ? String(this.#pid) : readVariable(this.#state, name)
  }

  assign(name: string, value: string): void {
    assignVariable(this.#state, name, value)
  }

  async substitute(script: ParsedScript): Promise<string> {
    if (script.errors?.[0] !== undefined)
      throw new ExpansionError(`syntax error: ${script.errors[0].message}`)
    const parts: Buffer[] = []
    let size = 0
    const sink = new Writable({
      write(chunk: Buffer, _encoding, done) {
        size += chunk.length
        if (size <= MAX_SUBSTITUTION_BYTES) parts.push(chunk)
        done()
      },
    })
    const child = this.#fork()
    const streams: Streams = {
      stdin: Readable.from([]),
      out: new Output(sink),
      err: this.#errors ?? new Output(sink),
    }
    this.#state.status = await child.#guarded(() => child.#statements(script.commands, streams), streams)
    if (size > MAX_SUBSTITUTION_BYTES) throw new ExpansionError('command substitution: output too long')
    return Buffer.concat(parts).toString().replace(/\n+$/, '')
  }

  async arithmetic(expression: ArithmeticExpression): Promise<number> {
    return evaluate(expression, this)
  }
}
