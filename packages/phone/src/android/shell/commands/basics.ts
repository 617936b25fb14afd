import { setTimeout as delay } from 'node:timers/promises'
import { KERNEL_RELEASE } from '../../files/android-tree.ts'
import { localTime } from '../../gather-view.ts'
import { absolute, type Command, type CommandContext, type CommandTable, options } from '../command.ts'

const id: Command = async ({ args, out }) => {
  const short: Readonly<Record<string, string>> = {
    '-u': '2000',
    '-g': '2000',
    '-un': 'shell',
    '-gn': 'shell',
  }
  const groups =
    '1004(input),1007(log),1011(adb),1015(sdcard_rw),1028(sdcard_r),3001(net_bt_admin),3002(net_bt),3003(inet)'
  await out.line(
    short[args.join('')] ??
      `uid=2000(shell) gid=2000(shell) groups=2000(shell),${groups} context=u:r:shell:s0`,
  )
  return 0
}

const whoami: Command = async ({ out }) => {
  await out.line('shell')
  return 0
}

const uname: Command = async ({ args, out }) => {
  const { flags } = options(args)
  const fields = { s: 'Linux', n: 'localhost', r: KERNEL_RELEASE, v: '#1 SMP PREEMPT', m: 'x86_64' }
  const wanted = flags.has('a') ? Object.keys(fields) : flags.size === 0 ? ['s'] : [...flags]
  await out.line(
    Object.entries(fields)
      .filter(([key]) => wanted.includes(key))
      .map(([, value]) => value)
      .join(' '),
  )
  return 0
}

const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat']
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']

const date: Command = async ({ args, out, err, phone }) => {
  const zone = args.includes('-u') ? 'UTC' : phone.properties.get('persist.sys.timezone')
  const operand = args.find((each) => !each.startsWith('-'))
  if (operand !== undefined && !operand.startsWith('+')) {
    await err.line('date: cannot set date: Operation not permitted')
    return 1
  }
  await out.line(formatDate(operand?.slice(1) ?? '%a %b %e %H:%M:%S %Z %Y', phone.now(), zone))
  return 0
}

function formatDate(format: string, now: Date, zone: string): string {
  const local = localTime(now, zone)
  const two = (value: number) => String(value).padStart(2, '0')
  const [year, month, day] = [local.getUTCFullYear(), local.getUTCMonth(), local.getUTCDate()]
  const [hour, minute, second] = [local.getUTCHours(), local.getUTCMinutes(), local.getUTCSeconds()]
  const offset = Math.round((local.getTime() - Math.floor(now.getTime() / 1000) * 1000) / 60_000)
  const fields: Readonly<Record<string, string>> = {
    Y: String(year),
    y: two(year % 100),
    m: two(month + 1),
    d: two(day),
    e: String(day).padStart(2),
    H: two(hour),
    M: two(minute),
    S: two(second),
    s: String(Math.floor(now.getTime() / 1000)),
    N: String((now.getTime() % 1000) * 1_000_000).padStart(9, '0'),
    a: DAYS[local.getUTCDay()] ?? '',
    b: MONTHS[month] ?? '',
    Z: zone === 'Etc/UTC' || zone === 'UTC' ? 'UTC' : zone,
    z: `${offset < 0 ? '-' : '+'}${two(Math.floor(Math.abs(offset) / 60))}${two(Math.abs(offset) % 60)}`,
    F: `${year}-${two(month + 1)}-${two(day)}`,
    T: `${two(hour)}:${two(minute)}:${two(second)}`,
    '%': '%',
  }
  return format.replace(/%(.)/g, (all, key: string) => fields[key] ?? all)
}

const uptime: Command = async ({ out, phone }) => {
  const minutes = Math.floor((phone.now().getTime() - phone.startedAt.getTime()) / 60_000)
  const days = Math.floor(minutes / 1440)
  const clock = formatDate('%T', phone.now(), phone.properties.get('persist.sys.timezone'))
  const hours = `${Math.floor((minutes % 1440) / 60)}:${String(minutes % 60).padStart(2, '0')}`
  await out.line(
    ` ${clock} up ${days > 0 ? `${days} days, ` : ''}${hours},  0 users,  load average: 0.00, 0.00, 0.00`,
  )
  return 0
}

const ps: Command = async ({ args, out, phone }) => {
  const columns = /-o\s*(\S+)/.exec(args.join(' '))?.[1]?.split(',') ?? []
  const value = (process: (typeof list)[number], column: string): string => {
    const fields: Readonly<Record<string, string>> = {
      USER: process.user,
      PID: String(process.pid),
      PPID: String(process.ppid),
      RSS: String(process.residentKb),
      NAME: process.name,
      ARGS: process.name,
      CMD: process.name,
    }
    return fields[column.toUpperCase()] ?? '-'
  }
  const list = phone.processes.list()
  if (columns.length > 0) {
    await out.line(columns.map((each) => each.toUpperCase()).join(' '))
    for (const process of list) await out.line(columns.map((column) => value(process, column)).join(' '))
    return 0
  }
  await out.line('USER           PID  PPID     VSZ    RSS WCHAN            ADDR S NAME')
  for (const process of list) {
    const numbers = `${String(process.pid).padStart(6)}${String(process.ppid).padStart(6)}`
    const memory = `${String(process.residentKb * 12).padStart(8)}${String(process.residentKb).padStart(7)}`
    await out.line(`${process.user.padEnd(12)}${numbers}${memory} 0                   0 S ${process.name}`)
  }
  return 0
}

const pidof: Command = async ({ args, out, phone }) => {
  const found = phone.processes.list().filter((each) => args.includes(each.name))
  if (found.length === 0) return 1
  await out.line(found.map((each) => each.pid).join(' '))
  return 0
}

const kill: Command = async ({ args, err, phone }) => {
  let status = 0
  for (const arg of args.filter((each) => !each.startsWith('-'))) {
    const found = phone.processes.list().find((each) => String(each.pid) === arg)
    // The shell user owns none of the phone's processes.
    await err.line(
      `/system/bin/sh: kill: ${arg}: ${found === undefined ? 'No such process' : 'Operation not permitted'}`,
    )
    status = 1
  }
  return status
}

const sleep: Command = async ({ args, err, signal }) => {
  const match = /^(\d+(?:\.\d+)?)([smhd]?)$/.exec(args[0] ?? '')
  if (match === null) {
    await err.line('sleep: Needs 1 argument')
    return 1
  }
  const unit = { '': 1, s: 1, m: 60, h: 3600, d: 86_400 }[match[2] ?? ''] ?? 1
  // One timer cannot wait longer than 2^31 ms.
  await delay(Math.min(Number(match[1]) * unit * 1000, 2_147_483_647), undefined, { signal })
  return 0
}

const which: Command = async ({ args, out, phone }) => {
  let status = 0
  for (const name of args) {
    if ((await phone.files.stat(`/system/bin/${name}`)) === undefined) status = 1
    else await out.line(`/system/bin/${name}`)
  }
  return status
}

const env: Command = async ({ env, out }) => {
  for (const [name, value] of env) await out.line(`${name}=${value}`)
  return 0
}

const pwd: Command = async ({ cwd, out }) => {
  await out.line(cwd)
  return 0
}

const sh: Command = async (context) => {
  const [flag, line, ...args] = context.args
  if (flag === '-c') return await context.shell(line ?? '', args)
  const source = flag === undefined ? context.stdin : await context.phone.files.read(absolute(context, flag))
  const parts: Buffer[] = []
  let size = 0
  for await (const chunk of source as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > 1024 * 1024) return await complain(context, 'script too long')
    parts.push(chunk)
  }
  return await context.shell(Buffer.concat(parts).toString(), [flag ?? 'sh', ...context.args.slice(1)])
}

async function complain(context: CommandContext, message: string): Promise<number> {
  await context.err.line(`${context.name}: ${message}`)
  return 1
}

/** The `test` command: the forms that scripts use. */
const test: Command = async (context) => {
  const args = [...context.args]
  if (context.name.endsWith('[') && args.pop() !== ']') return await complain(context, "missing ']'")
  return (await judge(context, args)) ? 0 : 1
}

async function judge(context: CommandContext, args: readonly string[]): Promise<boolean> {
  const or = args.indexOf('-o')
  if (or > 0) return (await judge(context, args.slice(0, or))) || (await judge(context, args.slice(or + 1)))
  const and = args.indexOf('-a')
  if (and > 0)
    return (await judge(context, args.slice(0, and))) && (await judge(context, args.slice(and + 1)))
  const [a = '', operator, b = ''] = args
  if (a === '!' && args.length > 1) return !(await judge(context, args.slice(1)))
  if (args.length <= 1) return a !== ''
  if (args.length === 2) return await unary(context, a, operator ?? '')
  switch (operator) {
    case '=':
    case '==':
      return a === b
    case '!=':
      return a !== b
    case '-eq':
      return Number(a) === Number(b)
    case '-ne':
      return Number(a) !== Number(b)
    case '-lt':
      return Number(a) < Number(b)
    case '-le':
      return Number(a) <= Number(b)
    case '-gt':
      return Number(a) > Number(b)
    case '-ge':
      return Number(a) >= Number(b)
    default:
      return false
  }
}

async function unary(context: CommandContext, operator: string, operand: string): Promise<boolean> {
  if (operator === '-z') return operand === ''
  if (operator === '-n') return operand !== ''
  const { files } = context.phone
  const path = absolute(context, operand)
  const stat = await (operator === '-L' || operator === '-h' ? files.lstat(path) : files.stat(path)).catch(
    () => undefined,
  )
  if (stat === undefined) return false
  const kind = stat.mode & 0o170000
  if (operator === '-d') return kind === 0o040000
  if (operator === '-f') return kind === 0o100000
  if (operator === '-L' || operator === '-h') return kind === 0o120000
  if (operator === '-s') return stat.size > 0
  if (operator === '-x') return (stat.mode & 0o111) !== 0
  return operator === '-e' || operator === '-r' || operator === '-w'
}

const succeed: Command = () => 0
const failing: Command = () => 1

const reboot: Command = async ({ args, phone, err }) => {
  const [how] = args
  if (how === '-p') phone.power('shutdown')
  else if (how === undefined) phone.power('reboot')
  else {
    await err.line(`reboot: this phone has no ${how} mode`)
    return 1
  }
  return 0
}

const svc: Command = async ({ args, err, phone }) => {
  const [service, verb] = args
  if (service === 'power' && (verb === 'shutdown' || verb === 'reboot')) {
    phone.power(verb)
    return 0
  }
  if (service === 'power' && verb === 'stayon') {
    await phone.settings.put('global', 'stay_on_while_plugged_in', args[2] === 'false' ? '0' : '7')
    return 0
  }
  await err.line('Available commands:\n    power stayon|reboot|shutdown')
  return 1
}

export const basicCommands: CommandTable = {
  id,
  whoami,
  uname,
  date,
  uptime,
  ps,
  pidof,
  kill,
  sleep,
  which,
  env,
  printenv: env,
  pwd,
  sh,
  test,
  '[': test,
  true: succeed,
  ':': succeed,
  sync: succeed,
  false: failing,
  reboot,
  svc,
}
