/* A phone's Android just big enough to test adbd and the host by: real files in the phone's directory, a handful of
 * commands. Tests only; the real one is `android/system.ts`.
 */
import { createReadStream, createWriteStream } from 'node:fs'
import { lstat, mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises'
import { dirname, join, normalize } from 'node:path'
import { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import {
  type AndroidSystem,
  type OpenAndroid,
  type PhoneFs,
  PhoneFsError,
  type PhoneStat,
  type ShellIo,
} from '../android/android.ts'

export const openFixtureAndroid: OpenAndroid = async ({ profile, dir, power }) => {
  const fs = fixtureFs(join(dir, 'files'))
  const properties = new Map([
    ['ro.product.name', 'fixture'],
    ['ro.product.model', profile.model],
    ['ro.product.device', 'fixture'],
  ])
  const system: AndroidSystem = {
    fs,
    getProp: (name) => properties.get(name) ?? '',
    boot: async (signal) => {
      await delay(profile.bootMs, undefined, { signal })
      properties.set('sys.boot_completed', '1')
    },
    run: async (line, io) => await runLine(line, io, { system, power }),
    screencap: async () => Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    close: async () => undefined,
  }
  return system
}

interface Surroundings {
  readonly system: AndroidSystem
  readonly power: (action: 'reboot' | 'shutdown') => void
}

async function runLine(line: string, io: ShellIo, { system, power }: Surroundings): Promise<number> {
  // adb quotes some arguments for the shell.
  const [command = '', ...args] = line.replaceAll("'", '').split(' ')
  switch (command) {
    case 'echo':
      io.stdout.write(`${args.join(' ')}\n`)
      return 0
    case 'warn':
      io.stderr.write(`${args.join(' ')}\n`)
      return Number(args[0])
    case 'getprop':
      io.stdout.write(`${system.getProp(args[0] ?? '')}\n`)
      return 0
    case 'cat':
      await pipeline(io.stdin, io.stdout, { end: false, signal: io.signal })
      return 0
    case 'screencap':
      io.stdout.write(await system.screencap())
      return 0
    case 'wait':
      await new Promise((resolve) => io.signal.addEventListener('abort', resolve, { once: true }))
      await pipeline(Readable.from(['gone']), await system.fs.write('/data/waited', { mode: 0o600 }))
      return 0
    case 'reboot':
      power('reboot')
      return 0
    case 'save': {
      await pipeline(io.stdin, await system.fs.write(args[0] ?? '', { mode: 0o600 }))
      return 0
    }
    default:
      io.stderr.write(`/system/bin/sh: ${command}: not found\n`)
      return 127
  }
}

function fixtureFs(root: string): PhoneFs {
  const real = (path: string): string => join(root, normalize(`/${path}`))
  return {
    lstat: async (path) => await looked(async () => await lstat(real(path))),
    stat: async (path) => await looked(async () => await stat(real(path))),
    list: async (path) => {
      const names = await inAndroidWords(async () => await readdir(real(path)))
      const entries = await Promise.all(
        names.map(async (name) => {
          // A file that is being written takes its name at its end: what readdir saw may be gone.
          const found = await lstat(join(real(path), name)).catch(() => undefined)
          if (found === undefined) return []
          const { mode, size, mtimeMs } = found
          return [{ name, mode, size, mtime: Math.trunc(mtimeMs / 1000) }]
        }),
      )
      return entries.flat()
    },
    read: async (path) => {
      await inAndroidWords(async () => await stat(real(path)))
      return createReadStream(real(path))
    },
    write: async (path, options) =>
      await inAndroidWords(async () => await openForWriting(real(path), options)),
    remove: async (path) => await inAndroidWords(async () => await rm(real(path), { recursive: true })),
    mkdir: async (path) => void (await mkdir(real(path), { recursive: true })),
  }
}

async function openForWriting(path: string, options: { mode: number; mtime?: number }): Promise<Writable> {
  if (path.includes('/system/')) throw new PhoneFsError('EROFS', 'Read-only file system')
  await mkdir(dirname(path), { recursive: true })
  const temporary = `${path}.part`
  const file = createWriteStream(temporary, { mode: options.mode })
  // Its writes tell of errors themselves.
  file.on('error', () => file.destroy())
  return new Writable({
    write: (chunk: Buffer, _encoding, done) => void file.write(chunk, done),
    final: (done) => {
      file.end(() => {
        const time = options.mtime ?? 0
        utimes(temporary, time, time)
          .then(async () => await rename(temporary, path))
          .then(() => done(), done)
      })
    },
    destroy: (error, done) => {
      file.destroy()
      rm(temporary, { force: true }).then(() => done(error), done)
    },
  })
}

async function looked(
  look: () => Promise<{ mode: number; size: number; mtimeMs: number }>,
): Promise<PhoneStat | undefined> {
  try {
    const { mode, size, mtimeMs } = await inAndroidWords(look)
    return { mode, size, mtime: Math.trunc(mtimeMs / 1000) }
  } catch (error) {
    if (error instanceof PhoneFsError && error.code === 'ENOENT') return undefined
    throw error
  }
}

async function inAndroidWords<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code === 'ENOENT') throw new PhoneFsError('ENOENT', 'No such file or directory')
    if (code === 'ENOTDIR') throw new PhoneFsError('ENOTDIR', 'Not a directory')
    if (code === 'EISDIR') throw new PhoneFsError('EISDIR', 'Is a directory')
    throw error
  }
}
