import { Readable, type Writable } from 'node:stream'
import type { Redirect } from 'unbash'
import { PhoneFsError } from '../android.ts'
import type { Internals } from '../internals.ts'
import { absolute, Output } from './command.ts'
import { type Expander, ExpansionError, expandText } from './expand.ts'

/** Streams of one command; redirections change them. */
export interface Streams {
  readonly stdin: Readable
  readonly out: Output
  readonly err: Output
}

/** Where names are looked up. */
interface CommandPlace {
  readonly cwd: string
  readonly fs: Internals['files']
}

/**
 * The streams of a command behind one of its redirections; a file that is written is also put into `opened`, for who ends it.
 * @throws PhoneFsError for a file that cannot be opened, ExpansionError for what this shell does not have.
 */
export async function openRedirect(
  redirect: Redirect,
  streams: Streams,
  { shell, opened }: { shell: Expander & CommandPlace; opened: Writable[] },
): Promise<Streams> {
  const { operator, target, fileDescriptor } = redirect
  if (target === undefined) throw new ExpansionError('redirection without a target')
  const name = await expandText(target, shell)
  const path = absolute(shell, name)
  const describe = (error: unknown, verb: string) =>
    error instanceof PhoneFsError
      ? new PhoneFsError(error.code, `can't ${verb} ${name}: ${error.message}`)
      : error
  switch (operator) {
    case '<': {
      const stdin = await shell.fs.read(path).catch((error: unknown) => {
        throw describe(error, 'open')
      })
      return { ...streams, stdin }
    }
    case '<<<':
      return { ...streams, stdin: Readable.from([Buffer.from(`${name}\n`)], { objectMode: false }) }
    case '>&':
      if (name === '1') return { ...streams, err: streams.out }
      if (name === '2') return { ...streams, out: streams.err }
      throw new ExpansionError(`${name}: bad file descriptor`)
    case '>':
    case '>|':
    case '>>':
    case '&>': {
      const opening = operator === '>>' ? shell.fs.append(path) : shell.fs.write(path, { mode: 0o660 })
      const file = await opening.catch((error: unknown) => {
        throw describe(error, 'create')
      })
      opened.push(file)
      const output = new Output(file)
      if (operator === '&>') return { ...streams, out: output, err: output }
      return fileDescriptor === 2 ? { ...streams, err: output } : { ...streams, out: output }
    }
    default:
      throw new ExpansionError(`${operator}: not supported by this shell`)
  }
}
