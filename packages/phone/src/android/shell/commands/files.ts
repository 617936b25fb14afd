import { createHash } from 'node:crypto'
import { pipeline } from 'node:stream/promises'
import { type PhoneEntry, PhoneFsError, type PhoneStat } from '../../android.ts'
import { localTime } from '../../gather-view.ts'
import {
  absolute,
  type Command,
  type CommandContext,
  type CommandTable,
  chunksOf,
  options,
} from '../command.ts'

const TYPE = 0o170000
const isDir = (stat: PhoneStat) => (stat.mode & TYPE) === 0o040000
const isLink = (stat: PhoneStat) => (stat.mode & TYPE) === 0o120000

/** Says what went wrong with one path and goes on: the exit code of the whole becomes 1. */
async function each(
  context: CommandContext,
  paths: readonly string[],
  act: (path: string, shown: string) => Promise<void>,
) {
  let status = 0
  for (const shown of paths) {
    context.signal.throwIfAborted()
    try {
      await act(absolute(context, shown), shown)
    } catch (error) {
      if (!(error instanceof PhoneFsError)) throw error
      status = 1
      await context.err.line(`${context.name}: ${shown}: ${error.message}`)
    }
  }
  return status
}

const ls: Command = async (context) => {
  const { flags, operands } = options(context.args)
  const paths = operands.length === 0 ? ['.'] : operands
  return await each(context, paths, async (path, shown) => {
    const { files } = context.phone
    const stat = flags.has('l') && !shown.endsWith('/') ? await files.lstat(path) : await files.stat(path)
    if (stat === undefined) throw new PhoneFsError('ENOENT', 'No such file or directory')
    if (!isDir(stat) || flags.has('d'))
      return await show(context, [{ ...stat, name: shown }], { flags, dir: '' })
    if (paths.length > 1 || flags.has('R')) await context.out.line(`${shown}:`)
    await listDirectory(context, { path, shown, flags })
  })
}

async function listDirectory(
  context: CommandContext,
  what: { path: string; shown: string; flags: ReadonlySet<string> },
): Promise<void> {
  const { path, flags } = what
  const entries = (await context.phone.files.list(path)).filter(
    ({ name }) => flags.has('a') || flags.has('A') || !name.startsWith('.'),
  )
  if (flags.has('t')) entries.sort((a, b) => b.mtime - a.mtime)
  if (flags.has('S')) entries.sort((a, b) => b.size - a.size)
  if (flags.has('r')) entries.reverse()
  if (flags.has('l'))
    await context.out.line(
      `total ${(entries.reduce((sum, each) => sum + Math.ceil(each.size / 512), 0) / 2) | 0}`,
    )
  const self = await context.phone.files.stat(path)
  const dots = flags.has('a') && self !== undefined ? ['.', '..'].map((name) => ({ ...self, name })) : []
  await show(context, [...dots, ...entries], { flags, dir: path })
  if (!flags.has('R')) return
  for (const entry of entries.filter(isDir)) {
    await context.out.line(`\n${what.shown}/${entry.name}:`)
    await listDirectory(context, {
      path: `${path}/${entry.name}`,
      shown: `${what.shown}/${entry.name}`,
      flags,
    })
  }
}

async function show(
  context: CommandContext,
  entries: readonly PhoneEntry[],
  how: { flags: ReadonlySet<string>; dir: string },
): Promise<void> {
  for (const entry of entries) {
    if (!how.flags.has('l')) {
      await context.out.line(entry.name)
      continue
    }
    const path = how.dir === '' ? absolute(context, entry.name) : `${how.dir}/${entry.name}`
    const target = isLink(entry) ? ` -> ${(await context.phone.files.readlink(path)) ?? ''}` : ''
    const [user, group] = ownerOf(await context.phone.files.realpath(path).catch(() => path))
    const when = dateTime(context, new Date(entry.mtime * 1000)).slice(0, 16)
    const size = String(entry.size).padStart(10)
    await context.out.line(
      `${modeText(entry.mode)} 1 ${user} ${group} ${size} ${when} ${entry.name}${target}`,
    )
  }
}

function ownerOf(path: string): readonly [string, string] {
  if (path.startsWith('/data/local')) return ['shell ', 'shell ']
  if (path.startsWith('/data/media')) return ['root  ', 'sdcard_rw']
  if (path.startsWith('/data')) return ['system', 'system']
  return ['root  ', 'root  ']
}

function modeText(mode: number): string {
  const kinds: Readonly<Record<number, string>> = { 9604: 'd', 21609: 'l', 4802: 'c' }
  const bits = [...'rwxrwxrwx'].map((letter, i) => (mode & (0o400 >> i) ? letter : '-')).join('')
  return (kinds[mode & TYPE] ?? '-') + bits
}

/** `2026-03-14 10:09:00` in the phone's time zone. */
function dateTime(context: CommandContext, at: Date): string {
  const local = localTime(at, context.phone.properties.get('persist.sys.timezone'))
  return local.toISOString().slice(0, 19).replace('T', ' ')
}

const rm: Command = async (context) => {
  const { flags, operands } = options(context.args)
  const recursive = flags.has('r') || flags.has('R')
  return await each(context, operands, async (path) => {
    const stat = await context.phone.files.lstat(path)
    if (stat === undefined && flags.has('f')) return
    if (stat !== undefined && isDir(stat)) {
      if (!recursive) throw new PhoneFsError('EISDIR', 'Is a directory')
      return await removeTree(context, path)
    }
    await context.phone.files.remove(path)
  })
}

async function removeTree(context: CommandContext, path: string): Promise<void> {
  for (const entry of await context.phone.files.list(path)) {
    context.signal.throwIfAborted()
    if (isDir(entry)) await removeTree(context, `${path}/${entry.name}`)
    else await context.phone.files.remove(`${path}/${entry.name}`)
  }
  await context.phone.files.remove(path)
}

const rmdir: Command = async (context) =>
  await each(context, options(context.args).operands, async (path) => {
    const stat = await context.phone.files.lstat(path)
    if (stat !== undefined && !isDir(stat)) throw new PhoneFsError('ENOTDIR', 'Not a directory')
    await context.phone.files.remove(path)
  })

const mkdir: Command = async (context) => {
  const { flags, operands } = options(context.args, 'm')
  return await each(context, operands, async (path) => {
    const { files } = context.phone
    if (!flags.has('p')) {
      if ((await files.lstat(path)) !== undefined) throw new PhoneFsError('EINVAL', 'File exists')
      const parent = await files.stat(`${path.replace(/\/+$/, '')}/..`)
      if (parent === undefined) throw new PhoneFsError('ENOENT', 'No such file or directory')
    }
    await files.mkdir(path)
  })
}

/** Where `cp a b` and `mv a b` put it: into `b` when that is a directory. */
async function destination(context: CommandContext, target: string, source: string): Promise<string> {
  const path = absolute(context, target)
  const stat = await context.phone.files.stat(path)
  const name = source.replace(/\/+$/, '').split('/').at(-1) ?? ''
  return stat !== undefined && isDir(stat) ? `${path}/${name}` : path
}

async function copyFile(context: CommandContext, from: string, to: string): Promise<void> {
  const { files } = context.phone
  const stat = await files.stat(from)
  const source = await files.read(from)
  await pipeline(source, await files.write(to, { mode: (stat?.mode ?? 0o660) & 0o777 }), {
    signal: context.signal,
  })
}

async function copyTree(context: CommandContext, from: string, to: string): Promise<void> {
  await context.phone.files.mkdir(to)
  if ((await context.phone.files.realpath(to)).startsWith(`${await context.phone.files.realpath(from)}/`))
    throw new PhoneFsError('EINVAL', 'Invalid argument')
  for (const entry of await context.phone.files.list(from)) {
    const pair = [`${from}/${entry.name}`, `${to}/${entry.name}`] as const
    if (isDir(entry)) await copyTree(context, ...pair)
    else await copyFile(context, ...pair)
  }
}

const cp: Command = async (context) => {
  const { flags, operands } = options(context.args)
  const target = operands.at(-1)
  if (target === undefined || operands.length < 2) return await usage(context, 'Needs 2 arguments')
  return await each(context, operands.slice(0, -1), async (path, shown) => {
    const stat = await context.phone.files.stat(path)
    if (stat === undefined) throw new PhoneFsError('ENOENT', 'No such file or directory')
    const to = await destination(context, target, shown)
    if (!isDir(stat)) return await copyFile(context, path, to)
    if (!flags.has('r') && !flags.has('R') && !flags.has('a'))
      throw new PhoneFsError('EISDIR', 'Is a directory')
    await copyTree(context, path, to)
  })
}

const mv: Command = async (context) => {
  const { operands } = options(context.args)
  const target = operands.at(-1)
  if (target === undefined || operands.length < 2) return await usage(context, 'Needs 2 arguments')
  return await each(context, operands.slice(0, -1), async (path, shown) => {
    await context.phone.files.rename(path, await destination(context, target, shown))
  })
}

async function usage(context: CommandContext, message: string): Promise<number> {
  await context.err.line(`${context.name}: ${message} (see "${context.name} --help")`)
  return 1
}

const touch: Command = async (context) =>
  await each(context, options(context.args, 'dtr').operands, async (path) => {
    await context.phone.files.touch(path, context.phone.now())
  })

const chmod: Command = async (context) => {
  const [mode = '', ...paths] = context.args
  if (!/^[0-7]{3,4}$/.test(mode)) return await usage(context, `bad mode '${mode}'`)
  return await each(context, paths, async (path) => context.phone.files.chmod(path, Number.parseInt(mode, 8)))
}

const stat: Command = async (context) => {
  const { values, operands } = options(context.args, 'c')
  const format = values.get('c')
  return await each(context, operands, async (path, shown) => {
    const found = await context.phone.files.lstat(path)
    if (found === undefined) throw new PhoneFsError('ENOENT', 'No such file or directory')
    const mode = (found.mode & 0o7777).toString(8)
    const when = dateTime(context, new Date(found.mtime * 1000))
    const fields: Readonly<Record<string, string>> = {
      n: shown,
      s: String(found.size),
      a: mode,
      A: modeText(found.mode),
      Y: String(found.mtime),
      y: when,
      F: isDir(found) ? 'directory' : isLink(found) ? 'symbolic link' : 'regular file',
      '%': '%',
    }
    if (format !== undefined)
      return await context.out.line(format.replace(/%(.)/g, (all, key: string) => fields[key] ?? all))
    await context.out.line(`  File: ${shown}`)
    await context.out.line(
      `  Size: ${found.size}\t Blocks: ${Math.ceil(found.size / 512)}\t IO Blocks: 512\t${fields.F}`,
    )
    await context.out.line(`Access: (0${mode}/${modeText(found.mode)})\nModify: ${when}`)
  })
}

const readlink: Command = async (context) => {
  const { flags, operands } = options(context.args)
  return await each(context, operands, async (path) => {
    const target = flags.has('f')
      ? await context.phone.files.realpath(path)
      : await context.phone.files.readlink(path)
    if (target !== undefined) await context.out.line(target)
  })
}

const du: Command = async (context) => {
  const { flags, operands } = options(context.args)
  return await each(context, operands.length === 0 ? ['.'] : operands, async (path, shown) => {
    const total = await usedBelow(context, path)
    await context.out.line(`${flags.has('h') ? human(total) : Math.ceil(total / 1024)}\t${shown}`)
  })
}

async function usedBelow(context: CommandContext, path: string): Promise<number> {
  const found = await context.phone.files.lstat(path)
  if (found === undefined) throw new PhoneFsError('ENOENT', 'No such file or directory')
  if (!isDir(found)) return found.size
  let total = 0
  for (const entry of await context.phone.files.list(path))
    total += await usedBelow(context, `${path}/${entry.name}`)
  return total
}

const df: Command = async (context) => {
  const { flags } = options(context.args)
  const { space } = context.phone.files
  const used = await space.usedBytes()
  const show = (bytes: number) =>
    (flags.has('h') ? human(bytes) : String(Math.ceil(bytes / 1024))).padStart(10)
  const percent = Math.ceil((used / space.totalBytes) * 100)
  await context.out.line(
    `Filesystem      ${flags.has('h') ? '      Size' : ' 1K-blocks'}       Used  Available Use% Mounted on`,
  )
  await context.out.line(
    `/dev/block/data ${show(space.totalBytes)} ${show(used)} ${show(space.totalBytes - used)} ${String(percent).padStart(3)}% /data`,
  )
  return 0
}

function human(bytes: number): string {
  const units = ['', 'K', 'M', 'G', 'T']
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit += 1
  }
  return `${value >= 10 || unit === 0 ? Math.round(value) : value.toFixed(1)}${units[unit]}`
}

const digest =
  (algorithm: 'md5' | 'sha1' | 'sha256'): Command =>
  async (context) => {
    const sum = async (stream: AsyncIterable<Buffer>) => {
      const hash = createHash(algorithm)
      for await (const chunk of stream) hash.update(chunk)
      return hash.digest('hex')
    }
    const { flags, operands } = options(context.args)
    if (operands.length === 0) {
      await context.out.line(`${await sum(chunksOf(context.stdin))}${flags.has('b') ? '' : '  -'}`)
      return 0
    }
    return await each(context, operands, async (path, shown) => {
      const hash = await sum((await context.phone.files.read(path)) as AsyncIterable<Buffer>)
      await context.out.line(flags.has('b') ? hash : `${hash}  ${shown}`)
    })
  }

export const fileCommands: CommandTable = {
  ls,
  rm,
  rmdir,
  mkdir,
  cp,
  mv,
  touch,
  chmod,
  stat,
  readlink,
  du,
  df,
  md5sum: digest('md5'),
  sha1sum: digest('sha1'),
  sha256sum: digest('sha256'),
}
