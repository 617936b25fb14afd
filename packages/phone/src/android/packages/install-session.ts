import { createWriteStream } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { PhoneFsError } from '../android.ts'
import type { Space } from '../files/space.ts'
import { InstallError, type InstallFlags, type PackageEntry, type PackageStore } from './package-store.ts'

interface Session {
  readonly flags: InstallFlags
  /** Names that were written; the phone installs packages of one APK. */
  readonly names: Set<string>
  bytes: number
}

const MAX_SESSIONS = 50

/** PackageInstaller's sessions: create, write the APK, commit or abandon. A session does not survive a restart. */
export class InstallSessions {
  readonly #options: { stagingDir: string; space: Space; packages: PackageStore }
  readonly #sessions = new Map<number, Session>()
  #nextId = 1

  constructor(options: { stagingDir: string; space: Space; packages: PackageStore }) {
    this.#options = options
  }

  create(flags: InstallFlags): number {
    if (this.#sessions.size >= MAX_SESSIONS)
      throw new InstallError('INSTALL_FAILED_INTERNAL_ERROR', 'Too many active sessions')
    // Spread out like Android's random ids, but the same in every run.
    const id = 100_000_000 + this.#nextId * 7919
    this.#nextId += 1
    this.#sessions.set(id, { flags, names: new Set(), bytes: 0 })
    return id
  }

  has(id: number): boolean {
    return this.#sessions.has(id)
  }

  /**
   * Takes exactly `sizeBytes` from the stream, or all of it when no size is given, and leaves the stream open: adb sends
   * the APK on a connection that it keeps to read the answer from.
   */
  async write(id: number, name: string, source: { stream: Readable; sizeBytes?: number }): Promise<number> {
    const session = this.#sessions.get(id)
    if (session === undefined) throw unknownSession(id)
    if (session.names.size > 0 && !session.names.has(name))
      throw new InstallError('INSTALL_FAILED_INVALID_APK', 'Split APKs are not supported by this phone')
    const { space, stagingDir } = this.#options
    await space.count()
    space.give(session.bytes)
    session.bytes = 0
    await mkdir(stagingDir, { recursive: true })
    await rm(this.#path(id), { force: true })
    const file = createWriteStream(this.#path(id), { mode: 0o600 })
    const failed = new Promise<never>((_resolve, reject) => file.once('error', reject))
    failed.catch(() => undefined)
    try {
      for await (const chunk of exactly(source)) {
        space.take(chunk.length)
        session.bytes += chunk.length
        if (!file.write(chunk))
          await Promise.race([new Promise<void>((resolve) => file.once('drain', () => resolve())), failed])
      }
      await Promise.race([new Promise<void>((resolve) => file.end(resolve)), failed])
    } catch (error) {
      file.destroy()
      if (error instanceof PhoneFsError && error.code === 'ENOSPC')
        throw new InstallError(
          'INSTALL_FAILED_INSUFFICIENT_STORAGE',
          'Failed to allocate space for the package',
        )
      throw error
    }
    session.names.add(name)
    return session.bytes
  }

  async commit(id: number): Promise<PackageEntry> {
    const session = this.#sessions.get(id)
    if (session === undefined) throw unknownSession(id)
    try {
      if (session.names.size === 0) throw new InstallError('INSTALL_FAILED_INVALID_APK', 'No packages staged')
      const installed = await this.#options.packages.install(this.#path(id), session.flags)
      // The bytes now belong to the package.
      session.bytes = 0
      return installed
    } finally {
      await this.abandon(id)
    }
  }

  /** Forgets a session and what was written; content when it is unknown. */
  async abandon(id: number): Promise<void> {
    const session = this.#sessions.get(id)
    if (session === undefined) return
    this.#sessions.delete(id)
    await rm(this.#path(id), { force: true })
    this.#options.space.give(session.bytes)
  }

  async close(): Promise<void> {
    for (const id of [...this.#sessions.keys()]) await this.abandon(id)
  }

  #path(id: number): string {
    return join(this.#options.stagingDir, `vmdl${id}.tmp`)
  }
}

async function* exactly(source: { stream: Readable; sizeBytes?: number }): AsyncGenerator<Buffer> {
  const { stream, sizeBytes = Number.POSITIVE_INFINITY } = source
  let left = sizeBytes
  if (left === 0) return
  const chunks = stream.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>
  for await (const chunk of chunks) {
    const part = chunk.length > left ? chunk.subarray(0, left) : chunk
    left -= part.length
    yield part
    if (left > 0) continue
    if (part.length < chunk.length) stream.unshift(chunk.subarray(part.length))
    return
  }
  if (left !== Number.POSITIVE_INFINITY && left > 0)
    throw new InstallError(
      'INSTALL_FAILED_INTERNAL_ERROR',
      `Expected ${sizeBytes} bytes, ${sizeBytes - left} came`,
    )
}

function unknownSession(id: number): InstallError {
  return new InstallError('INSTALL_FAILED_INVALID_ID', `Unknown session ${id}`)
}
