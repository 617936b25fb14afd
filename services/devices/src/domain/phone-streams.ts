import { once } from 'node:events'
import { PassThrough, Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { AdbError, type AdbSession, type PhoneProcess } from '@cloudphone/adb-client/adb-client'
import type { ShellLine } from '@cloudphone/contracts/api/device-operations-api'
import { ProblemError } from '@cloudphone/runtime/problem'
import { problems } from '../errors.ts'
import type { AdbKeyApplier } from './adb-key-applier.ts'
import type { Deps } from './deps.ts'
import { openPhone, phoneProblem } from './phone-door.ts'
import { type OnPhone, recordUse } from './phone-operations.ts'
import type { Visit, Visits } from './visits.ts'

/** Of what a command writes. */
const SHELL_LIMIT_BYTES = 64 * 1024 * 1024
/** Who follows a log longer asks again. */
const LOG_LIMIT_MS = 3_600_000
const FILE_LIMIT_BYTES = 2 * 1024 ** 3

/** A phone that is open for a visitor. */
interface Open extends AsyncDisposable {
  readonly visit: Visit
  readonly phone: AdbSession
}

/** What lasts on a phone: commands, logs and files. All of it ends when the visitor's right does. */
export class PhoneStreams {
  readonly #deps: Deps
  readonly #keys: AdbKeyApplier
  readonly #visits: Visits

  constructor(deps: Deps, keys: AdbKeyApplier, visits: Visits) {
    this.#deps = deps
    this.#keys = keys
    this.#visits = visits
  }

  /**
   * Runs a program and tells what it writes, line by line (`ShellLine`). It is killed when its time is up, when it has
   * written too much, and when the visitor must leave; the last line says so.
   * @throws before the first line: `device_not_running`, `phone_failed` and what a visit is refused for.
   */
  async shell(
    asked: OnPhone,
    { argv, timeoutSeconds }: { argv: readonly string[]; timeoutSeconds: number },
  ): Promise<Readable> {
    const { clock } = this.#deps
    const open = await this.#open(asked, timeoutSeconds * 1000, () =>
      problems.command_late({ seconds: timeoutSeconds }),
    )
    try {
      await recordUse(this.#deps, open.visit.device, { verb: 'device.shell', after: { argv } })
      const process = await whileWelcome(open, open.phone.spawn(argv))
      const lines = new Lines(open.visit.signal)
      void lines.write({ started: clock.now().toISOString() }).catch(() => undefined)
      void tellAll(process, lines, open)
      return lines.stream
    } catch (error) {
      await open[Symbol.asyncDispose]()
      throw await this.#asProblem(error, asked)
    }
  }

  /** The log as text: what is there, and whatever comes with `follow`. */
  async log(
    asked: OnPhone,
    { lines, follow, filter }: { lines: number; follow: boolean; filter: string },
  ): Promise<Readable> {
    const filters = filter.split(/\s+/).filter((spec) => spec !== '')
    const argv = ['logcat', '-v', 'threadtime', follow ? '-T' : '-t', String(lines), ...filters]
    const open = await this.#open(asked, LOG_LIMIT_MS, () =>
      problems.command_late({ seconds: LOG_LIMIT_MS / 1000 }),
    )
    try {
      const process = await whileWelcome(open, open.phone.spawn(argv))
      return passOn(process.stdout, open, async () => await process.kill())
    } catch (error) {
      await open[Symbol.asyncDispose]()
      throw await this.#asProblem(error, asked)
    }
  }

  /**
   * A file from a byte on, as it was when it was asked for: what is written to it meanwhile is left out. How many bytes will
   * come is not known of files that say they are empty, as those of /proc do. @throws `file_not_found`.
   */
  async pull(
    asked: OnPhone,
    { path, offset }: { path: string; offset: number },
  ): Promise<{ body: Readable; sizeBytes?: number }> {
    const open = await this.#open(asked)
    try {
      const found = await whileWelcome(open, open.phone.stat(path))
      if (found?.kind !== 'file') {
        throw problems.file_not_found({ deviceId: asked.deviceId, wanted: 'file', path })
      }
      const all = open.phone.pull(path)
      if (found.sizeBytes === 0) return { body: passOn(part(all, offset), open) }
      const sizeBytes = Math.max(0, found.sizeBytes - offset)
      return { body: passOn(part(all, offset, sizeBytes), open), sizeBytes }
    } catch (error) {
      await open[Symbol.asyncDispose]()
      throw await this.#asProblem(error, asked)
    }
  }

  /**
   * Puts a file on the phone: beside its place, and in its place when all of it is there, so that nobody reads half of it.
   * @throws `file_is_folder`, `file_too_large`, `phone_refused`, `phone_failed`.
   */
  async push(
    asked: OnPhone,
    path: string,
    upload: { readonly stream: Readable; readonly truncated: () => boolean },
  ): Promise<{ path: string; sizeBytes: number }> {
    const { deviceId } = asked
    await using open = await this.#open(asked)
    const { phone, visit } = open
    const beside = `${path}.${this.#deps.ids.next()}.part`
    try {
      if (path.endsWith('/') || (await whileWelcome(open, phone.stat(path)))?.kind === 'folder') {
        throw problems.file_is_folder({ deviceId, path })
      }
      await recordUse(this.#deps, visit.device, { verb: 'device.push', after: { path } })
      const { counted, sizeBytes } = counting()
      const feeding = pipeline(upload.stream, counted, { signal: visit.signal })
      const [fed, pushed] = await Promise.allSettled([
        feeding,
        whileWelcome(open, phone.push(counted, beside)).catch((error: unknown) => {
          counted.destroy()
          throw error
        }),
      ])
      if (upload.truncated()) throw problems.file_too_large({ limitBytes: FILE_LIMIT_BYTES })
      if (pushed.status === 'rejected') throw pushed.reason
      if (fed.status === 'rejected') throw fed.reason
      const moved = await whileWelcome(open, phone.run(['mv', '-f', beside, path]))
      if (moved.exitCode !== 0) throw new AdbError('command_failed', moved.stderr.trim())
      return { path, sizeBytes: sizeBytes() }
    } catch (error) {
      // Of a phone that has gone nothing can be taken back; its next wipe does.
      await phone.run(['rm', '-f', beside]).catch(() => undefined)
      throw await this.#asProblem(error, asked)
    }
  }

  async #open(asked: OnPhone, limitMs?: number, late?: () => Error): Promise<Open> {
    const timeUp = new AbortController()
    const timer =
      limitMs === undefined ? undefined : setTimeout(() => timeUp.abort(late?.()), limitMs).unref()
    const visit = await this.#visits
      .begin({ ...asked, signal: AbortSignal.any([asked.signal, timeUp.signal]) })
      .catch((error: unknown) => {
        clearTimeout(timer)
        throw error
      })
    const leave = (): void => {
      clearTimeout(timer)
      visit.end()
    }
    try {
      const phone = await openPhone({ device: visit.device, keys: this.#keys, signal: visit.signal })
      return {
        ...{ visit, phone },
        [Symbol.asyncDispose]: async () => {
          leave()
          // A phone that cannot be told good-bye is told by the end of the connection.
          await phone.close().catch(() => undefined)
        },
      }
    } catch (error) {
      leave()
      throw await this.#asProblem(error, asked)
    }
  }

  async #asProblem(error: unknown, { deviceId }: OnPhone): Promise<unknown> {
    if (error instanceof ProblemError || !(error instanceof Error) || error.name === 'AbortError')
      return error
    return await phoneProblem(this.#deps, deviceId, error)
  }
}

/** What the phone answers, or why the visitor must leave before it does. */
async function whileWelcome<T>({ visit }: Open, work: Promise<T>): Promise<T> {
  const { signal } = visit
  const left = Promise.withResolvers<never>()
  const leave = (): void => left.reject(signal.reason)
  if (signal.aborted) leave()
  signal.addEventListener('abort', leave, { once: true })
  try {
    return await Promise.race([work, left.promise])
  } finally {
    signal.removeEventListener('abort', leave)
  }
}

/** JSON lines, none faster than they are read. */
class Lines {
  readonly stream = new PassThrough()
  readonly #signal: AbortSignal

  constructor(signal: AbortSignal) {
    this.#signal = signal
    this.stream.on('error', () => undefined)
  }

  /** Resolves when there is room for more. @throws the signal's reason. */
  async write(line: ShellLine): Promise<void> {
    if (this.stream.write(`${JSON.stringify(line)}\n`)) return
    await once(this.stream, 'drain', { signal: this.#signal })
  }
}

async function tellAll(process: PhoneProcess, lines: Lines, open: Open): Promise<void> {
  let left = SHELL_LIMIT_BYTES
  const tell = async (name: 'stdout' | 'stderr'): Promise<void> => {
    for await (const part of process[name]) {
      left -= part.length
      if (left < 0) throw problems.output_too_large({ limitBytes: SHELL_LIMIT_BYTES })
      const text = Buffer.from(part).toString('base64')
      await lines.write(name === 'stdout' ? { stdout: text } : { stderr: text })
    }
  }
  try {
    const [exitCode] = await whileWelcome(open, Promise.all([process.exited, tell('stdout'), tell('stderr')]))
    lines.stream.end(`${JSON.stringify({ exitCode } satisfies ShellLine)}\n`)
  } catch (error) {
    const { signal } = open.visit
    const lost = await open.visit.lostRight().catch(() => undefined)
    const why = signal.aborted ? signal.reason : (lost ?? error)
    const code = why instanceof ProblemError ? why.code : 'phone_failed'
    const detail = why instanceof Error ? why.message : String(why)
    lines.stream.end(`${JSON.stringify({ error: { code, detail } } satisfies ShellLine)}\n`)
    await process.kill().catch(() => undefined)
  } finally {
    await open[Symbol.asyncDispose]()
  }
}

/** What the phone writes as a stream; it breaks when the visitor must leave, and the phone is closed after it. */
function passOn(source: AsyncIterable<Uint8Array>, open: Open, atEnd?: () => Promise<void>): Readable {
  const stream = Readable.from(source, { objectMode: false })
  const { signal } = open.visit
  const leave = (): void => void stream.destroy(signal.reason instanceof Error ? signal.reason : undefined)
  if (signal.aborted) leave()
  signal.addEventListener('abort', leave, { once: true })
  stream.once('close', () => {
    signal.removeEventListener('abort', leave)
    void (async () => {
      await atEnd?.().catch(() => undefined)
      await open[Symbol.asyncDispose]()
    })()
  })
  return stream
}

async function* part(
  source: AsyncIterable<Uint8Array>,
  offset: number,
  sizeBytes = Number.POSITIVE_INFINITY,
): AsyncGenerator<Uint8Array> {
  let at = 0
  const end = offset + sizeBytes
  for await (const piece of source) {
    const wanted = piece.subarray(Math.max(0, offset - at), Math.max(0, end - at))
    at += piece.length
    if (wanted.length > 0) yield wanted
    if (at >= end) return
  }
}

function counting(): { counted: Transform; sizeBytes: () => number } {
  let size = 0
  const counted = new Transform({
    transform(part: Buffer, _encoding, done) {
      size += part.length
      done(null, part)
    },
  })
  return { counted, sizeBytes: () => size }
}
