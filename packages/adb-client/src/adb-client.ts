/* Terminology:
 * - adbd: the daemon in a phone; listens on the phone's adb port
 * - session: one authenticated connection to an adbd, over which many commands run at once
 */
import { Readable } from 'node:stream'
import type { ReadableStream as NodeReadableStream } from 'node:stream/web'
import {
  Adb,
  type AdbAuthenticator,
  AdbAuthType,
  AdbCommand,
  type AdbCredentialStore,
  AdbDaemonTransport,
  type AdbSyncEntry,
  type AdbSyncStat,
  escapeArg,
  LinuxFileType,
} from '@yume-chan/adb'
import { ReadableStream as AdbReadableStream, type MaybeConsumable } from '@yume-chan/stream-extra'
import { type AdbKeyPair, signToken } from './adb-key.ts'
import { openTcp } from './tcp-connection.ts'

/** An error of a conversation with a phone; `code` is stable. */
export class AdbError extends Error {
  readonly code: 'unreachable' | 'unauthorized' | 'closed' | 'command_failed' | 'install_failed' | 'too_large'
  constructor(code: AdbError['code'], message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'AdbError'
    this.code = code
  }
}

export interface ShellResult {
  readonly stdout: string
  readonly stderr: string
  readonly exitCode: number
}

/** A program that runs on a phone. What it writes must be read, or it waits. */
export interface PhoneProcess {
  readonly stdout: AsyncIterable<Uint8Array>
  readonly stderr: AsyncIterable<Uint8Array>
  /** Its exit code. @throws AdbError `closed` when the connection went first. */
  readonly exited: Promise<number>
  kill(): Promise<void>
}

/** A file of a phone. */
export interface PhoneEntry {
  readonly name: string
  readonly kind: 'file' | 'folder' | 'link' | 'other'
  readonly sizeBytes: number
  /** Permission bits. */
  readonly mode: number
  readonly modifiedAt: Date
}

/** One authenticated connection to a phone. */
export interface AdbSession extends AsyncDisposable {
  readonly adb: Adb
  /** Runs a program with arguments; nothing in them is read by the phone's shell. */
  run(argv: readonly string[]): Promise<ShellResult>
  /** Runs a line in the phone's shell: only for lines without anything that a user gave. */
  shell(line: string): Promise<ShellResult>
  /** What a program writes, byte by byte. @throws AdbError `too_large` beyond `limitBytes` (default 64 MiB). */
  exec(argv: readonly string[], options?: { limitBytes?: number }): Promise<Buffer>
  /** Starts a program with arguments; nothing in them is read by the phone's shell. Its standard input is at its end. */
  spawn(argv: readonly string[]): Promise<PhoneProcess>
  getProp(name: string): Promise<string>
  /** The screen as a PNG. */
  screencap(): Promise<Buffer>
  push(source: Readable, path: string): Promise<void>
  pull(path: string): Readable
  /** What is at a path, links followed; undefined for nothing. */
  stat(path: string): Promise<PhoneEntry | undefined>
  /** What lies in a folder, but `.` and `..`. A folder that may not be read looks empty, as `adb` shows it. */
  list(path: string): Promise<readonly PhoneEntry[]>
  /** Streams an APK into the package manager. @throws AdbError `install_failed` with the phone's own words. */
  install(apk: Readable, sizeBytes: number): Promise<void>
  close(): Promise<void>
}

export interface ConnectOptions {
  host: string
  port: number
  /** Tried in turn. */
  keys: readonly AdbKeyPair[]
  /** For reaching and being let in. Default 5,000 ms. */
  timeoutMs?: number
  signal?: AbortSignal
}

/**
 * Connects and authenticates by signature; a key that the phone does not know is not offered for approval.
 * @throws AdbError `unreachable` when nothing answers, `unauthorized` when no key is accepted.
 */
export async function connectAdb(options: ConnectOptions): Promise<AdbSession> {
  const timeout = AbortSignal.timeout(options.timeoutMs ?? 5_000)
  const signal = options.signal === undefined ? timeout : AbortSignal.any([timeout, options.signal])
  const where = `${options.host}:${options.port}`
  const { connection, socket } = await openTcp({ host: options.host, port: options.port, signal }).catch(
    (error: unknown) => {
      throw new AdbError('unreachable', `The phone at ${where} cannot be reached: ${messageOf(error)}`, {
        cause: error,
      })
    },
  )
  const abort = () => void socket.destroy()
  signal.addEventListener('abort', abort)
  try {
    const transport = await AdbDaemonTransport.authenticate({
      serial: where,
      connection,
      credentialStore: noCredentials,
      authenticators: [signing(options.keys)],
    })
    return session(new Adb(transport))
  } catch (error) {
    socket.destroy()
    const text = signal.aborted ? 'it did not answer in time' : messageOf(error)
    throw new AdbError('unauthorized', `The phone at ${where} did not let us in: ${text}`, { cause: error })
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

/** Our keys never leave through it: the authenticator below has them. */
const noCredentials: AdbCredentialStore = {
  generateKey: () => {
    throw new AdbError('unauthorized', 'none of the keys is known to the phone')
  },
  iterateKeys: () => [],
}

/** Answers each token with a signature by the next key; when none is left, the library gives up. */
function signing(keys: readonly AdbKeyPair[]): AdbAuthenticator {
  return async function* (_store, nextRequest) {
    for (const key of keys) {
      const { arg0, payload } = await nextRequest()
      if (arg0 !== AdbAuthType.Token) return
      yield {
        ...{ command: AdbCommand.Auth, arg0: AdbAuthType.Signature, arg1: 0 },
        payload: signToken(key, payload),
      }
    }
  }
}

/**
 * A phone that dies between a request and its answer never answers, and the library waits for ever: whatever is asked ends
 * with the connection.
 */
function whileConnected(adb: Adb): <T>(work: Promise<T>) => Promise<T> {
  const lost = Promise.withResolvers<never>()
  const hungUp = () => lost.reject(new AdbError('closed', 'the phone has hung up'))
  adb.disconnected.then(hungUp, hungUp)
  // Nobody may be asking when it happens.
  lost.promise.catch(() => undefined)
  return (work) => Promise.race([work, lost.promise])
}

function session(adb: Adb): AdbSession {
  const connected = whileConnected(adb)
  const shellService = () => {
    const service = adb.subprocess.shellProtocol
    if (service === undefined) throw new AdbError('command_failed', 'the phone does not speak shell_v2')
    return service
  }
  const shell = async (line: string): Promise<ShellResult> => connected(shellService().spawnWaitText(line))
  const spawn = async (argv: readonly string[]): Promise<PhoneProcess> => {
    const process = await connected(shellService().spawn(quote(argv)))
    await process.stdin.close()
    const { stdout, stderr } = process
    const exited = connected(process.exited)
    // Who kills it may not care how it ended.
    exited.catch(() => undefined)
    return {
      stdout: toNode(stdout),
      stderr: toNode(stderr),
      exited,
      kill: async () => await process.kill(),
    }
  }
  const exec = async (argv: readonly string[], limitBytes: number): Promise<Buffer> => {
    const process = await adb.subprocess.noneProtocol.spawn(quote(argv))
    const parts: Uint8Array[] = []
    let sizeBytes = 0
    for await (const part of toNode(process.output)) {
      sizeBytes += part.length
      if (sizeBytes > limitBytes) {
        await process.kill()
        throw new AdbError('too_large', `${argv[0]} wrote more than ${limitBytes} bytes`)
      }
      parts.push(part)
    }
    return Buffer.concat(parts)
  }
  return {
    adb,
    run: (argv) => shell(quote(argv)),
    shell,
    exec: (argv, { limitBytes = 64 * 1024 * 1024 } = {}) => connected(exec(argv, limitBytes)),
    spawn,
    getProp: (name) => connected(adb.getProp(name)),
    screencap: () => connected(exec(['screencap', '-p'], 64 * 1024 * 1024)),
    push: (source, path) => connected(push(adb, source, path)),
    pull: (path) => pull(adb, path),
    stat: (path) => connected(stat(adb, path)),
    list: (path) => connected(list(adb, path)),
    install: (apk, sizeBytes) => connected(install(adb, apk, sizeBytes)),
    close: () => adb.close(),
    [Symbol.asyncDispose]: () => adb.close(),
  }
}

function quote(argv: readonly string[]): string {
  return argv.map(escapeArg).join(' ')
}

async function push(adb: Adb, source: Readable, path: string): Promise<void> {
  const sync = await adb.sync()
  try {
    await sync.write({ filename: path, file: fromNode(source), permission: 0o644 })
  } finally {
    await sync.dispose()
  }
}

function pull(adb: Adb, path: string): Readable {
  return Readable.from(
    (async function* () {
      const sync = await adb.sync()
      try {
        yield* toNode(sync.read(path))
      } finally {
        await sync.dispose()
      }
    })(),
    { objectMode: false, highWaterMark: 1024 * 1024 },
  )
}

const nothingThere: ReadonlySet<string> = new Set(['ENOENT', 'ENOTDIR', 'EACCES', 'ELOOP', 'ENAMETOOLONG'])

async function stat(adb: Adb, path: string): Promise<PhoneEntry | undefined> {
  const sync = await adb.sync()
  try {
    const found = await sync.stat(path)
    return entryOf(path.split('/').at(-1) ?? '', found)
  } catch (error) {
    // The library's message is the name of what the phone answered.
    if (error instanceof Error && nothingThere.has(error.message)) return undefined
    throw error
  } finally {
    await sync.dispose()
  }
}

async function list(adb: Adb, path: string): Promise<PhoneEntry[]> {
  const sync = await adb.sync()
  try {
    const found = await sync.readdir(path)
    return found
      .filter(({ name }) => name !== '.' && name !== '..')
      .map((entry) => entryOf(entry.name, entry))
  } finally {
    await sync.dispose()
  }
}

function entryOf(name: string, of: AdbSyncEntry | AdbSyncStat): PhoneEntry {
  const kinds: Readonly<Record<number, PhoneEntry['kind']>> = {
    [LinuxFileType.Directory]: 'folder',
    [LinuxFileType.File]: 'file',
    [LinuxFileType.Link]: 'link',
  }
  return {
    name,
    kind: kinds[of.type] ?? 'other',
    sizeBytes: Number(of.size),
    mode: of.permission,
    modifiedAt: new Date(Number(of.mtime) * 1000),
  }
}

/** `cmd package install -S <size>` reads exactly so many bytes from its input and answers in one line. */
async function install(adb: Adb, apk: Readable, sizeBytes: number): Promise<void> {
  const process = await adb.subprocess.noneProtocol.spawn(
    `cmd package install -r -S ${Math.trunc(sizeBytes)}`,
  )
  const writer = process.stdin.getWriter()
  const answer = readText(toNode(process.output))
  try {
    for await (const part of apk as AsyncIterable<Uint8Array>) if (!(await accepts(writer, part))) break
  } catch (error) {
    await process.kill()
    throw error
  }
  const text = (await answer).trim()
  if (!/^Success\b/m.test(text))
    throw new AdbError('install_failed', text === '' ? 'the phone hung up' : text)
}

/** False when the package manager has hung up: it has seen enough, and its answer says more than our broken pipe. */
async function accepts(writer: WritableStreamDefaultWriter<Uint8Array>, part: Uint8Array): Promise<boolean> {
  try {
    await writer.write(part)
    return true
  } catch {
    return false
  }
}

async function readText(parts: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = []
  for await (const part of parts) chunks.push(part)
  return Buffer.concat(chunks).toString()
}

/** The library's streams are the platform's own, under types of its own. */
function toNode(stream: AdbReadableStream<Uint8Array>): AsyncIterable<Uint8Array> {
  return Readable.fromWeb(stream as unknown as NodeReadableStream<Uint8Array>)
}

function fromNode(source: Readable): AdbReadableStream<MaybeConsumable<Uint8Array>> {
  const parts = source.iterator()
  return new AdbReadableStream<MaybeConsumable<Uint8Array>>({
    pull: async (controller) => {
      const next = await parts.next()
      if (next.done === true) controller.close()
      else controller.enqueue(next.value as Uint8Array)
    },
    cancel: async () => {
      source.destroy()
    },
  })
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
