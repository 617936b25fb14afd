import { CloudphoneError } from '@cloudphone/sdk/client'
import { Command } from 'commander'
import { z } from 'zod'
import { type Connection, connect, type GlobalFlags } from './connection.ts'
import { type Output, openOutput } from './output.ts'

/** What a command's work gets. */
export interface Run<Flags> extends Connection {
  readonly flags: Flags
  readonly out: Output
  readonly args: readonly string[]
}

/**
 * Adds a command below `parent`. Its work runs signed in; an error becomes one line on standard error and exit code 1.
 */
export function command<Flags extends object = object>(
  parent: Command,
  name: string,
  description: string,
  options: {
    configure?: (command: Command) => Command
    /** What the command is good for, as a line that one can type. */
    example?: string
    /** Runs when the parent is named alone. */
    isDefault?: true
    run: (run: Run<Flags>) => Promise<void>
  },
): Command {
  const made = new Command(name).description(description).copyInheritedSettings(parent)
  options.configure?.(made)
  if (options.example !== undefined)
    made.addHelpText('after', `\nExample:\n  $ cloudphone ${options.example}`)
  made.action(async () => {
    const flags = made.optsWithGlobals<GlobalFlags & Flags>()
    const out = openOutput({ json: flags.json === true })
    try {
      await options.run({ ...(await connect(flags)), flags, out, args: made.args })
    } catch (error) {
      report(error, out)
      process.exitCode = 1
    }
  })
  parent.addCommand(made, { isDefault: options.isDefault === true })
  return made
}

function report(error: unknown, out: Output): void {
  const problem = error instanceof CloudphoneError ? error.problem : undefined
  if (out.json) {
    const code = error instanceof CloudphoneError ? error.code : 'cli_error'
    process.stderr.write(problem === undefined ? jsonError(code, wordsOf(error)) : asJson(problem))
    return
  }
  const code = problem === undefined ? '' : ` (${problem.code})`
  process.stderr.write(`cloudphone: ${wordsOf(error)}${code}\n`)
  for (const field of problem?.errors ?? []) process.stderr.write(`  ${field.path}: ${field.message}\n`)
}

/** An error of this side, in the form of the platform's own. */
export function jsonError(code: string, detail: string): string {
  const title = code.replaceAll('_', ' ')
  return asJson({ type: `urn:cloudphone:problem:${code}`, title, detail, code, success: false })
}

function asJson(value: object): string {
  return `${JSON.stringify(value, null, 2)}\n`
}

/** One line. What does not fit the contract before it is sent, such as an id, has been given by the user. */
function wordsOf(error: unknown): string {
  if (error instanceof z.ZodError)
    return error.issues.map(({ path, message }) => [...path, message].join(': ')).join('; ')
  return error instanceof Error ? error.message : String(error)
}

/** The n-th argument; the command's own declaration has made sure that it is there. */
export function argument(args: readonly string[], index: number): string {
  const value = args[index]
  if (value === undefined) throw new Error(`argument ${index + 1} is missing`)
  return value
}
