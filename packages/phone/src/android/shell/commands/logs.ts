import { localTime } from '../../gather-view.ts'
import type { LogEntry, LogPriority } from '../../state/log-buffer.ts'
import type { Command, CommandContext, CommandTable } from '../command.ts'

const RANK = 'VDIWEFS'

interface Selection {
  readonly dump: boolean
  readonly clear: boolean
  readonly format: string
  readonly last: number | undefined
  /** Lowest rank shown, by tag; `*` for the rest. */
  readonly filters: ReadonlyMap<string, number>
  readonly pid: number | undefined
  readonly pattern: string | undefined
}

function parse(args: readonly string[]): Selection {
  const filters = new Map<string, number>()
  const chosen: { -readonly [K in keyof Selection]: Selection[K] } = {
    dump: false,
    clear: false,
    format: 'threadtime',
    last: undefined,
    filters,
    pid: undefined,
    pattern: undefined,
  }
  const rest = [...args]
  for (let arg = rest.shift(); arg !== undefined; arg = rest.shift()) {
    if (arg === '-d') chosen.dump = true
    else if (arg === '-c') chosen.clear = true
    else if (arg === '-s') filters.set('*', RANK.indexOf('S'))
    else if (arg === '-v') chosen.format = rest.shift() ?? 'threadtime'
    else if (arg === '-t' || arg === '-T') {
      chosen.last = Number(rest.shift())
      if (arg === '-t') chosen.dump = true
    } else if (arg === '-b' || arg === '--buffer') rest.shift()
    else if (arg.startsWith('--pid'))
      chosen.pid = Number(arg.includes('=') ? arg.split('=')[1] : rest.shift())
    else if (arg === '-e' || arg === '--regex') chosen.pattern = rest.shift()
    else if (!arg.startsWith('-')) {
      const [tag = '', priority = 'V'] = arg.split(':')
      filters.set(tag, priority === '*' ? 0 : Math.max(0, RANK.indexOf(priority.toUpperCase())))
    }
  }
  return chosen
}

function isShown(entry: LogEntry, { filters, pid, pattern }: Selection): boolean {
  if (pid !== undefined && entry.pid !== pid) return false
  // A plain part of the text: expressions from outside are not run against every line.
  if (pattern !== undefined && !entry.message.includes(pattern)) return false
  const least = filters.get(entry.tag) ?? filters.get('*') ?? 0
  return RANK.indexOf(entry.priority) >= least
}

function show(entry: LogEntry, format: string, zone: string): string {
  const { priority, tag, message, pid, tid } = entry
  const time = localTime(entry.at, zone).toISOString()
  const millis = entry.at.toISOString().slice(20, 23)
  const when = `${time.slice(5, 10)} ${time.slice(11, 19)}.${millis}`
  switch (format) {
    case 'brief':
      return `${priority}/${tag.padEnd(8)}(${String(pid).padStart(5)}): ${message}`
    case 'tag':
      return `${priority}/${tag.padEnd(8)}: ${message}`
    case 'raw':
      return message
    case 'time':
      return `${when} ${priority}/${tag.padEnd(8)}(${String(pid).padStart(5)}): ${message}`
    default:
      return `${when} ${String(pid).padStart(5)} ${String(tid).padStart(5)} ${priority} ${tag.padEnd(8)}: ${message}`
  }
}

const MAX_QUEUE = 2000

const logcat: Command = async (context) => {
  const selection = parse(context.args)
  const { log, properties } = context.phone
  if (selection.clear) {
    log.clear()
    return 0
  }
  const zone = properties.get('persist.sys.timezone')
  const write = (entry: LogEntry) => context.out.line(show(entry, selection.format, zone))
  // Subscribed before the old entries are written, so that none falls between.
  const follower = selection.dump ? undefined : new Follower(context)
  try {
    const entries = log.entries().filter((entry) => isShown(entry, selection))
    await context.out.line('--------- beginning of main')
    for (const entry of selection.last === undefined ? entries : entries.slice(-Math.max(1, selection.last)))
      await write(entry)
    if (follower === undefined) return 0
    for (;;) {
      const entry = await follower.next()
      if (isShown(entry, selection)) await write(entry)
    }
  } finally {
    follower?.stop()
  }
}

/** New entries in order; a reader that is too slow loses the oldest, as in logd. */
class Follower {
  readonly #queue: LogEntry[] = []
  readonly #signal: AbortSignal
  readonly #end: () => void
  #wake: (() => void) | undefined

  constructor(context: CommandContext) {
    this.#signal = context.signal
    this.#end = context.phone.log.follow((entry) => {
      this.#queue.push(entry)
      if (this.#queue.length > MAX_QUEUE) this.#queue.shift()
      this.#wake?.()
    })
  }

  async next(): Promise<LogEntry> {
    for (;;) {
      this.#signal.throwIfAborted()
      const entry = this.#queue.shift()
      if (entry !== undefined) return entry
      await new Promise<void>((resolve) => {
        const wake = () => {
          this.#signal.removeEventListener('abort', wake)
          resolve()
        }
        this.#wake = wake
        this.#signal.addEventListener('abort', wake, { once: true })
      })
    }
  }

  stop(): void {
    this.#end()
  }
}

const log: Command = async (context) => {
  const rest = [...context.args]
  let priority: LogPriority = 'I'
  let tag = 'log'
  while (rest[0] === '-t' || rest[0] === '-p') {
    const [flag, value = ''] = rest.splice(0, 2)
    if (flag === '-t') tag = value.slice(0, 100)
    else
      priority =
        'VDIWEF'.includes(value.toUpperCase()) && value !== '' ? (value.toUpperCase() as LogPriority) : 'I'
  }
  context.phone.log.write({ priority, tag, message: rest.join(' '), pid: context.phone.processes.takePid() })
  return 0
}

export const logCommands: CommandTable = { logcat, log }
