import { createReadStream, createWriteStream, type Stats } from 'node:fs'
import { chmod, lstat, mkdir, readdir, readlink, rename, rmdir, unlink, utimes } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { type PhoneEntry, type PhoneFs, PhoneFsError, type PhoneStat } from '../android.ts'
import { accessTo, isTraversable, isWithin } from './access.ts'
import { absent, denied, translate } from './file-errors.ts'
import { CHUNK_BYTES, metered } from './metered-file.ts'
import type { Space } from './space.ts'
import { readVirtual, sinkOf, virtualStat } from './virtual-io.ts'
import type { VirtualNode } from './virtual-tree.ts'

const MAX_LINKS = 40
const MAX_PATH = 4096
const MAX_NAME = 255
/** Where a path leads, all links on the way resolved. `virtual` and `real` are both unset when nothing is there. */
interface Place {
  readonly path: string
  readonly virtual?: VirtualNode
  /** Path on the host's disk; only below /data. */
  readonly host?: string
  readonly real?: Stats
}

export interface PhoneFilesOptions {
  readonly root: VirtualNode
  /** The host's directory of /data. */
  readonly dataDir: string
  /** On the same file system as `dataDir`: half-written files wait here, invisible to the phone. */
  readonly stagingDir: string
  readonly space: Space
  readonly now: () => Date
}

/**
 * The phone's files as the shell user sees them. A path is walked one name at a time inside the phone's own tree: `..`
 * and links (absolute ones too) start from the phone's root, never from the host's, so no path can name a host file
 * outside `dataDir`. Only names checked by `lstat` on the way are ever opened.
 */
export class PhoneFiles implements PhoneFs {
  readonly space: Space
  readonly #options: PhoneFilesOptions
  #staged = 0

  constructor(options: PhoneFilesOptions) {
    this.#options = options
    this.space = options.space
  }

  async lstat(path: string): Promise<PhoneStat | undefined> {
    return this.#statOf(await this.#walk(path, 'keep'))
  }

  async stat(path: string): Promise<PhoneStat | undefined> {
    return this.#statOf(await this.#walk(path, 'follow'))
  }

  /** The path with every link and `..` resolved; the last name need not exist. */
  async realpath(path: string): Promise<string> {
    return (await this.#walk(path, 'follow')).path
  }

  async readlink(path: string): Promise<string | undefined> {
    const place = await this.#walk(path, 'keep')
    if (place.virtual?.kind === 'link') return place.virtual.target
    return place.real?.isSymbolicLink() && place.host !== undefined ? await readlink(place.host) : undefined
  }

  async list(path: string): Promise<PhoneEntry[]> {
    const place = await this.#existing(path)
    if (place.virtual?.kind === 'dir') return this.#listVirtual(place.virtual.entries)
    if (place.host === undefined || !place.real?.isDirectory())
      throw new PhoneFsError('ENOTDIR', 'Not a directory')
    if (!accessTo(place.path).list) throw denied()
    const entries: PhoneEntry[] = []
    for (const name of (await readdir(place.host)).sort()) {
      const stats = await lstatOrUndefined(join(place.host, name))
      // Gone between readdir and here.
      if (stats !== undefined) entries.push({ name, ...toStat(stats) })
    }
    return entries
  }

  async read(path: string): Promise<Readable> {
    const place = await this.#existing(path)
    if (place.virtual !== undefined) return readVirtual(place.virtual)
    if (place.real?.isDirectory()) throw new PhoneFsError('EISDIR', 'Is a directory')
    if (place.host === undefined || !accessTo(place.path).read) throw denied()
    return createReadStream(place.host, { highWaterMark: CHUNK_BYTES })
  }

  async write(path: string, options: { mode: number; mtime?: number }): Promise<Writable> {
    const place = await this.#walk(path, 'follow')
    const sink = sinkOf(place.virtual)
    if (sink !== undefined) return sink
    const host = this.#writable(place)
    if (place.real?.isDirectory()) throw new PhoneFsError('EISDIR', 'Is a directory')
    await this.#makeParents(place.path)
    await this.space.count()
    return this.#staging({ host, path: place.path, options })
  }

  /** Adds to the end of a file, which appears if it was not there. */
  async append(path: string): Promise<Writable> {
    const place = await this.#walk(path, 'follow')
    const sink = sinkOf(place.virtual)
    if (sink !== undefined) return sink
    const host = this.#writable(place)
    if (place.real?.isDirectory()) throw new PhoneFsError('EISDIR', 'Is a directory')
    await this.#requireParent(place.path)
    await this.space.count()
    const file = createWriteStream(host, { flags: 'a', mode: 0o660 })
    return metered(file, this.space)
  }

  async remove(path: string): Promise<void> {
    const place = await this.#walk(path, 'keep')
    if (isWithin('/data/local/tmp', place.path) || isWithin('/data/media/0', place.path)) throw denied()
    if (place.host === undefined || place.real === undefined) throw absentOr(place)
    if (!accessTo(dirname(place.path)).write) throw denied()
    try {
      if (place.real.isDirectory()) await rmdir(place.host)
      else {
        await unlink(place.host)
        await this.space.count()
        this.space.give(place.real.size)
      }
    } catch (error) {
      throw translate(error)
    }
  }

  /** Makes the directory and its parents; content when it is there already. */
  async mkdir(path: string): Promise<void> {
    const place = await this.#walk(path, 'follow')
    if (place.virtual?.kind === 'dir' || place.virtual?.kind === 'mount') return
    if (place.real?.isDirectory()) return
    const host = this.#writable(place)
    if (place.real !== undefined) throw new PhoneFsError('ENOTDIR', 'Not a directory')
    await this.#makeParents(place.path)
    try {
      await mkdir(host, { mode: 0o770, recursive: true })
    } catch (error) {
      throw translate(error)
    }
  }

  /** Moves within /data; replaces a file that is there. */
  async rename(from: string, to: string): Promise<void> {
    const source = await this.#walk(from, 'keep')
    const target = await this.#walk(to, 'keep')
    if (source.host === undefined || source.real === undefined) throw absentOr(source)
    if (!accessTo(dirname(source.path)).write) throw denied()
    const host = this.#writable(target)
    await this.#requireParent(target.path)
    if (isWithin(target.path, source.path) && target.path !== source.path)
      throw new PhoneFsError('EINVAL', 'Invalid argument')
    try {
      await rename(source.host, host)
    } catch (error) {
      throw translate(error)
    }
    if (target.real?.isFile() && target.path !== source.path) {
      await this.space.count()
      this.space.give(target.real.size)
    }
  }

  async touch(path: string, mtime: Date): Promise<void> {
    const place = await this.#walk(path, 'follow')
    const host = this.#writable(place)
    if (place.real === undefined) {
      await this.#requireParent(place.path)
      const file = await this.write(path, { mode: 0o660 })
      await new Promise<void>((resolve, reject) => file.once('error', reject).end(resolve))
    }
    await utimes(host, mtime, mtime)
  }

  async chmod(path: string, mode: number): Promise<void> {
    const place = await this.#existing(path)
    await chmod(this.#writable(place), (mode & 0o777) | 0o600)
  }

  /** The host's file behind an Android path, for the phone's own parts; undefined when it is not a readable file. */
  async hostFile(path: string): Promise<string | undefined> {
    const place = await this.#walk(path, 'follow')
    return place.real?.isFile() && accessTo(place.path).read ? place.host : undefined
  }

  #writable(place: Place): string {
    if (place.host === undefined) throw new PhoneFsError('EROFS', 'Read-only file system')
    if (!accessTo(place.path).write) throw denied()
    return place.host
  }

  async #existing(path: string): Promise<Place> {
    const place = await this.#walk(path, 'follow')
    if (place.virtual === undefined && place.real === undefined) throw absentOr(place)
    if (place.virtual?.kind === 'mount') throw denied()
    return place
  }

  async #makeParents(path: string): Promise<void> {
    const parent = dirname(path)
    const place = await this.#walk(parent, 'follow')
    if (place.real?.isDirectory()) return
    await this.mkdir(parent)
  }

  async #requireParent(path: string): Promise<void> {
    const parent = await this.#walk(dirname(path), 'follow')
    if (!parent.real?.isDirectory()) throw absent()
  }

  async #walk(path: string, last: 'follow' | 'keep'): Promise<Place> {
    if (path.includes('\0') || path.length > MAX_PATH) throw new PhoneFsError('EINVAL', 'Invalid argument')
    let left = names(path)
    let place: Place = { path: '/', virtual: this.#options.root }
    let links = 0
    while (left.length > 0) {
      const [name = '', ...rest] = left
      left = rest
      if (name === '..') {
        // By the walked path, not by the text: `/sdcard/..` is the parent of what the link leads to.
        place = await this.#at(dirname(place.path))
        continue
      }
      if (name.length > MAX_NAME) throw new PhoneFsError('EINVAL', 'File name too long')
      const next = await this.#step(place, name)
      const target = rest.length > 0 || last === 'follow' ? await linkTarget(next) : undefined
      if (target === undefined) {
        place = next
        continue
      }
      links += 1
      if (links > MAX_LINKS) throw new PhoneFsError('EINVAL', 'Too many symbolic links encountered')
      left = [...names(target), ...rest]
      if (target.startsWith('/')) place = { path: '/', virtual: this.#options.root }
      if (left.length > MAX_PATH) throw new PhoneFsError('EINVAL', 'Invalid argument')
    }
    return place
  }

  async #step(place: Place, name: string): Promise<Place> {
    const path = place.path === '/' ? `/${name}` : `${place.path}/${name}`
    if (place.virtual?.kind === 'dir') {
      const virtual = place.virtual.entries.get(name)
      return virtual === undefined ? { path } : { path, virtual }
    }
    if (place.virtual !== undefined && place.virtual.kind !== 'mount')
      throw new PhoneFsError('ENOTDIR', 'Not a directory')
    if (place.real !== undefined && !place.real.isDirectory())
      throw new PhoneFsError('ENOTDIR', 'Not a directory')
    const parent = place.virtual?.kind === 'mount' ? this.#options.dataDir : place.host
    if (parent === undefined) return { path }
    if (!isTraversable(place.path)) throw denied()
    const host = join(parent, name)
    const real = await lstatOrUndefined(host)
    return real === undefined ? { path, host } : { path, host, real }
  }

  /** A place by a path that is already free of links and `..`. */
  async #at(path: string): Promise<Place> {
    let place: Place = { path: '/', virtual: this.#options.root }
    for (const name of names(path)) place = await this.#step(place, name)
    return place
  }

  #statOf(place: Place): PhoneStat | undefined {
    const { virtual, real } = place
    if (real !== undefined) return toStat(real)
    if (virtual === undefined) return undefined
    const mtime = Math.floor(this.#options.now().getTime() / 1000)
    return { ...virtualStat(virtual), mtime }
  }

  #listVirtual(entries: ReadonlyMap<string, VirtualNode>): PhoneEntry[] {
    const mtime = Math.floor(this.#options.now().getTime() / 1000)
    return [...entries]
      .map(([name, node]) => ({ name, ...virtualStat(node), mtime }))
      .sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  /** A file that takes its name only when the stream has ended well. */
  #staging(target: { host: string; path: string; options: { mode: number; mtime?: number } }): Writable {
    const { stagingDir, now } = this.#options
    this.#staged += 1
    const temporary = join(stagingDir, `write-${process.pid}-${now().getTime()}-${this.#staged}`)
    const file = createWriteStream(temporary, { flags: 'wx', mode: 0o600, highWaterMark: CHUNK_BYTES })
    return metered(file, this.space, {
      commit: async () => {
        const replaced = await lstatOrUndefined(target.host)
        if (replaced?.isDirectory()) throw new PhoneFsError('EISDIR', 'Is a directory')
        // adb tells the time after the last byte: the options are read when the file is whole.
        const { mode, mtime } = target.options
        await chmod(temporary, (mode & 0o777) | 0o600)
        const time = mtime === undefined ? now() : new Date(mtime * 1000)
        await utimes(temporary, time, time)
        await rename(temporary, target.host)
        if (replaced !== undefined) this.space.give(replaced.size)
      },
      discard: () => unlink(temporary),
    })
  }
}

function names(path: string): string[] {
  return path.split('/').filter((name) => name !== '' && name !== '.')
}

async function linkTarget(place: Place): Promise<string | undefined> {
  if (place.virtual?.kind === 'link') return place.virtual.target
  return place.real?.isSymbolicLink() && place.host !== undefined ? await readlink(place.host) : undefined
}

async function lstatOrUndefined(host: string): Promise<Stats | undefined> {
  try {
    return await lstat(host)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw translate(error)
  }
}

function toStat(stats: Stats): PhoneStat {
  return { mode: stats.mode, size: stats.size, mtime: Math.floor(stats.mtimeMs / 1000) }
}

function absentOr(place: Place): PhoneFsError {
  return place.virtual === undefined ? absent() : new PhoneFsError('EROFS', 'Read-only file system')
}
