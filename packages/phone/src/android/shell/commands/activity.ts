import { startApp, stopApp } from '../../apps.ts'
import { LAUNCHER } from '../../packages/system-apps.ts'
import type { Command, CommandContext, CommandTable } from '../command.ts'

interface Intent {
  readonly component: { packageName: string; activity: string } | undefined
  readonly action: string | undefined
  readonly categories: readonly string[]
  readonly packageName: string | undefined
  readonly data: string | undefined
  readonly operands: readonly string[]
}

/** Reads the intent arguments of `am`; extras are taken and have no one to go to. */
function parseIntent(args: readonly string[]): Intent {
  const values = new Map<string, string>()
  const categories: string[] = []
  const operands: string[] = []
  const rest = [...args]
  for (let arg = rest.shift(); arg !== undefined; arg = rest.shift()) {
    if (arg === '-c') categories.push(rest.shift() ?? '')
    else if (['-n', '-a', '-p', '-d', '-t', '-f', '--user', '--display'].includes(arg))
      values.set(arg, rest.shift() ?? '')
    else if (/^--e[a-z]*$/.test(arg)) {
      rest.shift()
      if (arg !== '--esn') rest.shift()
    } else if (!arg.startsWith('-')) operands.push(arg)
  }
  const [packageName, activity] = (
    values.get('-n') ??
    operands.find((each) => each.includes('/')) ??
    ''
  ).split('/')
  return {
    component:
      packageName !== undefined && activity !== undefined
        ? { packageName, activity: activity.startsWith('.') ? packageName + activity : activity }
        : undefined,
    action: values.get('-a'),
    categories,
    packageName: values.get('-p') ?? operands.find((each) => /^[\w.]+$/.test(each) && each.includes('.')),
    data: values.get('-d'),
    operands,
  }
}

function describe({ component, action, categories, packageName, data }: Intent): string {
  const parts = [
    action && `act=${action}`,
    categories.length > 0 && `cat=[${categories.join(',')}]`,
    data && `dat=${data}`,
    packageName && component === undefined && `pkg=${packageName}`,
    component && `cmp=${shortName(component)}`,
  ]
  return `Intent { ${parts.filter(Boolean).join(' ')} }`
}

function shortName({ packageName, activity }: { packageName: string; activity: string }): string {
  const short = activity.startsWith(`${packageName}.`) ? activity.slice(packageName.length) : activity
  return `${packageName}/${short}`
}

const start = async (context: CommandContext, args: readonly string[]): Promise<number> => {
  const intent = parseIntent(args)
  await context.out.line(`Starting: ${describe(intent)}`)
  const { component } = intent
  const target = component ?? resolve(context, intent)
  const entry = target && context.phone.packages.get(target.packageName)
  if (target === undefined || entry === undefined || !entry.activities.includes(target.activity)) {
    if (component === undefined) {
      await context.err.line(`Error: Activity not started, unable to resolve ${describe(intent)}`)
      return 1
    }
    await context.err.line('Error type 3')
    await context.err.line(
      `Error: Activity class {${component.packageName}/${component.activity}} does not exist.`,
    )
    return 1
  }
  const before = context.phone.screen.state.windows.at(-1)?.packageName
  if (args.includes('-S')) stopApp(context.phone, target.packageName)
  if (before === target.packageName && !args.includes('-S'))
    await context.err.line('Warning: Activity not started, its current task has been brought to the front')
  startApp(context.phone, target)
  if (args.includes('-W')) {
    await context.out.line(
      `Status: ok\nLaunchState: COLD\nActivity: ${shortName(target)}\nTotalTime: 0\nWaitTime: 0\nComplete`,
    )
  }
  return 0
}

/** The activity that answers MAIN/LAUNCHER of a package, HOME, or a web address. */
function resolve(
  context: CommandContext,
  intent: Intent,
): { packageName: string; activity: string } | undefined {
  const { packages } = context.phone
  const wanted = intent.categories.includes('android.intent.category.HOME')
    ? LAUNCHER
    : intent.action === 'android.settings.SETTINGS'
      ? 'com.android.settings'
      : intent.action === 'android.intent.action.VIEW' && /^https?:/.test(intent.data ?? '')
        ? 'org.chromium.webview_shell'
        : intent.packageName
  const entry = wanted === undefined ? undefined : packages.get(wanted)
  const activity = entry?.launchableActivity ?? entry?.activities[0]
  return entry === undefined || activity === undefined
    ? undefined
    : { packageName: entry.packageName, activity }
}

const forceStop = async (context: CommandContext, args: readonly string[]): Promise<number> => {
  const name = args.find((each, i) => !each.startsWith('-') && args[i - 1] !== '--user')
  if (name === undefined) {
    await context.err.line('Error: Argument expected after "force-stop"')
    return 255
  }
  stopApp(context.phone, name)
  return 0
}

const broadcast = async (context: CommandContext, args: readonly string[]): Promise<number> => {
  const intent = parseIntent(args)
  await context.out.line(`Broadcasting: ${describe(intent)}`)
  const message = `Broadcast ${intent.action ?? ''} from shell`
  context.phone.log.write({ priority: 'I', tag: 'ActivityManager', message, pid: 1 })
  await context.out.line('Broadcast completed: result=0')
  return 0
}

const getCurrentUser = async (context: CommandContext): Promise<number> => {
  await context.out.line('0')
  return 0
}

const VERBS: Readonly<Record<string, (context: CommandContext, args: readonly string[]) => Promise<number>>> =
  {
    start,
    'start-activity': start,
    'force-stop': forceStop,
    'stop-app': forceStop,
    kill: forceStop,
    broadcast,
    'get-current-user': getCurrentUser,
  }

export const am: Command = async (context) => {
  const [verb = '', ...args] = context.args
  const found = Object.hasOwn(VERBS, verb) ? VERBS[verb] : undefined
  if (found !== undefined) return await found(context, args)
  await context.err.line(
    verb === '' ? `usage: am [${Object.keys(VERBS).join('|')}]` : `Unknown command: ${verb}`,
  )
  return 255
}

/** `monkey -p <package> -c android.intent.category.LAUNCHER 1`: how scripts open an app without knowing its activity. */
const monkey: Command = async (context) => {
  const at = context.args.indexOf('-p')
  const packageName = context.args[at + 1]
  const entry = at < 0 || packageName === undefined ? undefined : context.phone.packages.get(packageName)
  const count = Number(context.args.at(-1))
  if (entry?.launchableActivity === undefined || !Number.isInteger(count)) {
    await context.out.line('** No activities found to run, monkey aborted.')
    return 252
  }
  startApp(context.phone, { packageName: entry.packageName, activity: entry.launchableActivity })
  await context.out.line(`Events injected: ${count}`)
  return 0
}

export const activityCommands: CommandTable = { am, monkey }
