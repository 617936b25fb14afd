import { createReadStream } from 'node:fs'
import { InstallError, type InstallFlags, type PackageEntry } from '../../packages/package-store.ts'
import { absolute, type Command, type CommandContext, type CommandTable } from '../command.ts'

type Verb = (context: CommandContext, args: readonly string[]) => Promise<number>

const list: Verb = async (context, args) => {
  const [what, ...rest] = args
  if (what === 'features') {
    for (const feature of FEATURES) await context.out.line(`feature:${feature}`)
    return 0
  }
  if (what === 'users') {
    await context.out.line('Users:\n\tUserInfo{0:Owner:c13} running')
    return 0
  }
  if (what !== 'packages' && what !== 'package')
    return await fail(context, `Error: unknown list type '${what ?? ''}'`)
  const flags = new Set(rest.filter((each) => each.startsWith('-')))
  const filter = rest.find((each, i) => !each.startsWith('-') && rest[i - 1] !== '--user')
  for (const entry of context.phone.packages.list()) {
    if (flags.has('-3') && entry.system) continue
    if (flags.has('-s') && !entry.system) continue
    if (flags.has('-d') && entry.enabled) continue
    if (flags.has('-e') && !entry.enabled) continue
    if (filter !== undefined && !entry.packageName.includes(filter)) continue
    await context.out.line(lineOf(entry, flags))
  }
  return 0
}

function lineOf(entry: PackageEntry, flags: ReadonlySet<string>): string {
  const path = flags.has('-f') ? `${entry.apkPath}=` : ''
  const version = flags.has('--show-versioncode') ? ` versionCode:${entry.versionCode}` : ''
  const installer = flags.has('-i') ? `  installer=${entry.installer ?? 'null'}` : ''
  const uid = flags.has('-U') ? ` uid:${entry.uid}` : ''
  return `package:${path}${entry.packageName}${version}${installer}${uid}`
}

/** What the simulated hardware has. */
const FEATURES = [
  'android.hardware.ethernet',
  'android.hardware.touchscreen',
  'android.hardware.touchscreen.multitouch',
  'android.hardware.screen.portrait',
  'android.software.home_screen',
]

const path: Verb = async (context, args) => {
  const entry = context.phone.packages.get(args.find((each) => !each.startsWith('-')) ?? '')
  // Android says nothing at all for a package that is not there.
  if (entry === undefined) return 1
  await context.out.line(`package:${entry.apkPath}`)
  return 0
}

interface InstallArgs {
  readonly flags: InstallFlags
  readonly sizeBytes: number | undefined
  readonly operands: readonly string[]
}

function parseInstall(args: readonly string[]): InstallArgs {
  const operands: string[] = []
  let sizeBytes: number | undefined
  let replace: InstallFlags['replace'] = 'allowed'
  let downgrade: InstallFlags['downgrade'] = 'forbidden'
  let grantAll = false
  let installer: string | undefined
  const rest = [...args]
  for (let arg = rest.shift(); arg !== undefined; arg = rest.shift()) {
    if (arg === '-S') sizeBytes = Number(rest.shift())
    else if (arg === '-i') installer = rest.shift()
    else if (arg === '-R') replace = 'forbidden'
    else if (arg === '-d') downgrade = 'allowed'
    else if (arg === '-g') grantAll = true
    else if (/^(--user|--abi|--install-location|--originating-uri|--referrer|-p)$/.test(arg)) rest.shift()
    else if (arg === '-' || !arg.startsWith('-')) operands.push(arg)
  }
  if (sizeBytes !== undefined && !(Number.isSafeInteger(sizeBytes) && sizeBytes >= 0))
    throw new InstallError('INSTALL_FAILED_INVALID_APK', 'Invalid APK size')
  return {
    flags: { replace, downgrade, grantAll, ...(installer !== undefined && { installer }) },
    sizeBytes,
    operands,
  }
}

/** `install -S n` takes the APK from stdin, as adb sends it; `install <path>` takes a file of the phone. */
const install: Verb = async (context, args) =>
  await reporting(context, async () => {
    const { flags, sizeBytes, operands } = parseInstall(args)
    const [file = '-'] = operands
    if (file === '-' && sizeBytes === undefined)
      return await fail(context, 'Error: must either specify a package size or an APK file')
    const source =
      file === '-' ? { stream: context.stdin, sizeBytes: sizeBytes ?? 0 } : await openApk(context, file)
    if (source === undefined) return 1
    const { sessions } = context.phone
    const id = sessions.create(flags)
    try {
      await sessions.write(id, 'base.apk', source)
      await sessions.commit(id)
    } finally {
      await sessions.abandon(id)
    }
    await context.out.line('Success')
    return 0
  })

async function openApk(context: CommandContext, file: string) {
  const host = await context.phone.files.hostFile(absolute(context, file)).catch(() => undefined)
  if (host !== undefined) return { stream: createReadStream(host, { highWaterMark: 256 * 1024 }) }
  await context.err.line(`Error: Unable to open file: ${file}`)
  await context.err.line('Consider using a file under /data/local/tmp/')
  await context.out.line(`Failure [failed to open ${file}]`)
  return undefined
}

/** Runs a step of an installation; what goes wrong is told in PackageManager's words. */
async function reporting(context: CommandContext, step: () => Promise<number>): Promise<number> {
  try {
    return await step()
  } catch (error) {
    if (!(error instanceof InstallError)) throw error
    await context.out.line(`Failure [${error.message}]`)
    return 1
  }
}

const installCreate: Verb = async (context, args) =>
  await reporting(context, async () => {
    const id = context.phone.sessions.create(parseInstall(args).flags)
    await context.out.line(`Success: created install session [${id}]`)
    return 0
  })

const installWrite: Verb = async (context, args) =>
  await reporting(context, async () => {
    const { sizeBytes, operands } = parseInstall(args)
    const [id = '', name = 'base.apk', file = '-'] = operands
    const stdin = { stream: context.stdin, ...(sizeBytes !== undefined && { sizeBytes }) }
    const source = file === '-' ? stdin : await openApk(context, file)
    if (source === undefined) return 1
    const written = await context.phone.sessions.write(Number(id), name, source)
    await context.out.line(`Success: streamed ${written} bytes`)
    return 0
  })

const installCommit: Verb = async (context, args) =>
  await reporting(context, async () => {
    await context.phone.sessions.commit(Number(args.find((each) => !each.startsWith('-'))))
    await context.out.line('Success')
    return 0
  })

const installAbandon: Verb = async (context, args) => {
  const id = Number(args[0])
  if (!context.phone.sessions.has(id))
    return await fail(context, `Failure [unknown session ${args[0] ?? ''}]`)
  await context.phone.sessions.abandon(id)
  await context.out.line('Success')
  return 0
}

const uninstall: Verb = async (context, args) => {
  const name = operandsOf(args)[0] ?? ''
  const entry = context.phone.packages.get(name)
  if (entry?.system) {
    await context.out.line('Failure [DELETE_FAILED_INTERNAL_ERROR]')
    return 1
  }
  if (!(await context.phone.packages.uninstall(name))) {
    await context.out.line('Failure [DELETE_FAILED_INTERNAL_ERROR]')
    return 1
  }
  await context.out.line('Success')
  return 0
}

const clear: Verb = async (context, args) => {
  const name = operandsOf(args)[0] ?? ''
  const entry = context.phone.packages.get(name)
  if (entry === undefined) {
    await context.out.line('Failed')
    return 1
  }
  // Apps of this phone keep no data; what clearing ends is the running app and the rights it was given.
  context.phone.processes.stop(name)
  context.phone.screen.apply({ kind: 'close', packageName: name })
  await context.out.line('Success')
  return 0
}

const permission =
  (verb: 'grant' | 'revoke'): Verb =>
  async (context, args) => {
    const [name = '', wanted = ''] = operandsOf(args)
    const entry = context.phone.packages.get(name)
    if (entry === undefined)
      return await exception(context, 'IllegalArgumentException', `Unknown package: ${name}`)
    if (!entry.permissions.includes(wanted))
      return await exception(
        context,
        'SecurityException',
        `Package ${name} has not requested permission ${wanted}`,
      )
    const without = entry.granted.filter((each) => each !== wanted)
    await context.phone.packages.update(name, { granted: verb === 'grant' ? [...without, wanted] : without })
    return 0
  }

const setEnabled =
  (enabled: boolean, word: string): Verb =>
  async (context, args) => {
    const name = operandsOf(args)[0] ?? ''
    if (!(await context.phone.packages.update(name, { enabled })))
      return await exception(
        context,
        'SecurityException',
        `Shell cannot change component state for ${name} to ${word}`,
      )
    await context.out.line(`Package ${name} new state: ${word}`)
    return 0
  }

const resolveActivity: Verb = async (context, args) => {
  const name = args.at(-1) ?? ''
  const entry = context.phone.packages.get(name)
  if (entry?.launchableActivity === undefined) {
    await context.out.line('No activity found')
    return 0
  }
  await context.out.line('priority=0 preferredOrder=0 match=0x108000 specificIndex=-1 isDefault=true')
  await context.out.line(`${name}/${entry.launchableActivity}`)
  return 0
}

function operandsOf(args: readonly string[]): string[] {
  return args.filter((each, i) => !each.startsWith('-') && args[i - 1] !== '--user')
}

async function exception(context: CommandContext, kind: string, message: string): Promise<number> {
  await context.err.line(
    `\nException occurred while executing '${context.args[0] ?? ''}':\njava.lang.${kind}: ${message}`,
  )
  return 255
}

async function fail(context: CommandContext, message: string): Promise<number> {
  await context.err.line(message)
  return 1
}

const dump: Verb = async (context, args) => {
  const entry = context.phone.packages.get(args[0] ?? '')
  if (entry === undefined) {
    await context.out.line(`Unable to find package: ${args[0] ?? ''}`)
    return 1
  }
  await context.out.write(describePackage(entry))
  return 0
}

/** The part of `dumpsys package <name>` that tools read. */
export function describePackage(entry: PackageEntry): string {
  const time = (iso: string) => iso.slice(0, 19).replace('T', ' ')
  const granted = (each: string) => `      ${each}: granted=${entry.granted.includes(each)}`
  return `${[
    ...(entry.launchableActivity === undefined
      ? []
      : [
          'Activity Resolver Table:',
          '  Non-Data Actions:',
          '      android.intent.action.MAIN:',
          `        ${entry.packageName}/${entry.launchableActivity} filter`,
          '          Action: "android.intent.action.MAIN"',
          '          Category: "android.intent.category.LAUNCHER"',
          '',
        ]),
    'Packages:',
    `  Package [${entry.packageName}]:`,
    `    userId=${entry.uid}`,
    `    codePath=${entry.apkPath.replace(/\/base\.apk$/, '')}`,
    `    versionCode=${entry.versionCode} minSdk=${entry.minSdk} targetSdk=${entry.targetSdk}`,
    `    versionName=${entry.versionName}`,
    `    flags=[ ${entry.system ? 'SYSTEM ' : ''}HAS_CODE ALLOW_CLEAR_USER_DATA ]`,
    `    firstInstallTime=${time(entry.firstInstallTime)}`,
    `    lastUpdateTime=${time(entry.lastUpdateTime)}`,
    `    installerPackageName=${entry.installer ?? 'null'}`,
    '    requested permissions:',
    ...entry.permissions.map((each) => `      ${each}`),
    '    install permissions:',
    ...entry.permissions.map(granted),
    `    User 0: installed=true hidden=false stopped=false enabled=${entry.enabled ? 0 : 3}`,
  ].join('\n')}\n`
}

const VERBS: Readonly<Record<string, Verb>> = {
  list,
  path,
  install,
  'install-create': installCreate,
  'install-write': installWrite,
  'install-commit': installCommit,
  'install-abandon': installAbandon,
  uninstall,
  clear,
  dump,
  grant: permission('grant'),
  revoke: permission('revoke'),
  enable: setEnabled(true, 'enabled'),
  'disable-user': setEnabled(false, 'disabled-user'),
  'resolve-activity': resolveActivity,
}

/** `pm`, and what `cmd package` hands over to. */
export const pm: Command = async (context) => {
  const [verb = '', ...args] = context.args
  const found = Object.hasOwn(VERBS, verb) ? VERBS[verb] : undefined
  if (found !== undefined) return await found(context, args)
  await context.err.line(
    verb === '' ? `usage: pm [${Object.keys(VERBS).join('|')}]` : `Unknown command: ${verb}`,
  )
  return 255
}

export const packageCommands: CommandTable = { pm }
