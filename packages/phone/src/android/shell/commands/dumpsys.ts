import { memoryOf } from '../../files/android-tree.ts'
import { LAUNCHER } from '../../packages/system-apps.ts'
import { type BatteryState, FULL_BATTERY } from '../../state/battery.ts'
import type { Command, CommandContext, CommandTable } from '../command.ts'
import { describePackage } from './packages.ts'

type Service = (context: CommandContext, args: readonly string[]) => Promise<number>

/** package/activity of what has the focus. */
function focused(context: CommandContext): string {
  const top = context.phone.screen.state.windows.at(-1)
  const launcher = context.phone.packages.get(LAUNCHER)
  return top === undefined
    ? `${LAUNCHER}/${launcher?.activities[0] ?? ''}`
    : `${top.packageName}/${top.activity}`
}

const battery: Service = async (context, args) => {
  const [verb, key, value] = args
  if (verb === 'reset') {
    context.phone.battery = FULL_BATTERY
    return 0
  }
  if (verb === 'unplug') {
    context.phone.battery = {
      ...context.phone.battery,
      ac: false,
      usb: false,
      wireless: false,
      status: 3,
      forced: true,
    }
    return 0
  }
  if (verb === 'set') return await setBattery(context, key ?? '', value ?? '')
  const { level, status, ac, usb, wireless, present, temp, forced } = context.phone.battery
  await context.out.write(
    `${[
      'Current Battery Service state:',
      ...(forced ? ["  (UPDATES STOPPED -- use 'reset' to restart)"] : []),
      `  AC powered: ${ac}`,
      `  USB powered: ${usb}`,
      `  Wireless powered: ${wireless}`,
      '  Max charging current: 0',
      '  Max charging voltage: 0',
      `  status: ${status}`,
      '  health: 2',
      `  present: ${present}`,
      `  level: ${level}`,
      '  scale: 100',
      '  voltage: 4200',
      `  temperature: ${temp}`,
      '  technology: Li-ion',
    ].join('\n')}\n`,
  )
  return 0
}

async function setBattery(context: CommandContext, key: string, value: string): Promise<number> {
  const number = Number(value)
  const changes: Readonly<Record<string, Partial<BatteryState>>> = {
    level: { level: number },
    status: { status: number },
    temp: { temp: number },
    ac: { ac: number !== 0 },
    usb: { usb: number !== 0 },
    wireless: { wireless: number !== 0 },
    present: { present: number !== 0 },
  }
  const change = Object.hasOwn(changes, key) ? changes[key] : undefined
  const inRange = Number.isInteger(number) && (key !== 'level' || (number >= 0 && number <= 100))
  if (change === undefined || !inRange) {
    await context.err.line(change === undefined ? `Unknown set option: ${key}` : `Bad value: ${value}`)
    return 255
  }
  context.phone.battery = { ...context.phone.battery, ...change, forced: true }
  return 0
}

const window: Service = async (context) => {
  const { width, height } = context.phone.screen.layout()
  const { awake } = context.phone.screen.state
  const component = focused(context)
  await context.out.write(
    `${[
      'WINDOW MANAGER DISPLAY CONTENTS (dumpsys window displays)',
      '  Display: mDisplayId=0',
      `    init=${context.phone.profile.width}x${context.phone.profile.height} ${context.phone.profile.dpi}dpi cur=${width}x${height} app=${width}x${height}`,
      `  mCurrentFocus=Window{1a2b3c4 u0 ${component}}`,
      `  mFocusedApp=ActivityRecord{5d6e7f8 u0 ${component} t1}`,
      '  mDreamingLockscreen=false',
      `  mAwake=${awake} screenState=${awake ? 'SCREEN_STATE_ON' : 'SCREEN_STATE_OFF'}`,
    ].join('\n')}\n`,
  )
  return 0
}

const activity: Service = async (context) => {
  const { windows } = context.phone.screen.state
  await context.out.line('ACTIVITY MANAGER ACTIVITIES (dumpsys activity activities)')
  await context.out.line('Display #0 (activities from top to bottom):')
  for (const [i, each] of [...windows].reverse().entries())
    await context.out.line(
      `    * Hist #${windows.length - i}: ActivityRecord{${(i + 1).toString(16)}5d6e7f u0 ${each.packageName}/${each.activity} t${windows.length - i}}`,
    )
  const launcher = context.phone.packages.get(LAUNCHER)?.activities[0] ?? ''
  await context.out.line(`    * Hist #0: ActivityRecord{05d6e7f u0 ${LAUNCHER}/${launcher} t0}`)
  await context.out.line(
    `  mResumedActivity: ActivityRecord{5d6e7f8 u0 ${focused(context)} t${windows.length}}`,
  )
  return 0
}

const meminfo: Service = async (context) => {
  const { totalKb, freeKb, availableKb } = memoryOf(context.phone.profile.memoryMb)
  const processes = context.phone.processes.list().sort((a, b) => b.residentKb - a.residentKb)
  const kb = (value: number) => `${value.toLocaleString('en-US')}K`
  await context.out.line('Total RSS by process:')
  for (const each of processes)
    await context.out.line(`${kb(each.residentKb).padStart(12)}: ${each.name} (pid ${each.pid})`)
  await context.out.line(
    `\nTotal RAM: ${kb(totalKb)} (status normal)\n Free RAM: ${kb(availableKb)}\n Used RAM: ${kb(totalKb - freeKb)}`,
  )
  return 0
}

const packageService: Service = async (context, args) => {
  const name = args.find((each) => !each.startsWith('-'))
  const entries = name === undefined ? context.phone.packages.list() : [context.phone.packages.get(name)]
  for (const entry of entries) {
    if (entry === undefined) await context.out.line(`Unable to find package: ${name}`)
    else await context.out.write(describePackage(entry))
  }
  return 0
}

const power: Service = async (context) => {
  const { awake } = context.phone.screen.state
  await context.out.line('POWER MANAGER (dumpsys power)')
  await context.out.line(`  mWakefulness=${awake ? 'Awake' : 'Asleep'}`)
  await context.out.line(`  mBatteryLevel=${context.phone.battery.level}`)
  await context.out.line(`  Display Power: state=${awake ? 'ON' : 'OFF'}`)
  return 0
}

const display: Service = async (context) => {
  const { width, height } = context.phone.screen.layout()
  const dpi = context.phone.display.density ?? context.phone.profile.dpi
  await context.out.line('DISPLAY MANAGER (dumpsys display)')
  await context.out.line(
    `  mBaseDisplayInfo=DisplayInfo{"Built-in Screen", displayId 0, real ${width} x ${height}, density ${dpi}}`,
  )
  return 0
}

const SERVICES: Readonly<Record<string, Service>> = {
  activity,
  battery,
  display,
  meminfo,
  package: packageService,
  power,
  window,
}

const dumpsys: Command = async (context) => {
  const [name, ...args] = context.args
  if (name === '-l') {
    await context.out.line('Currently running services:')
    for (const each of Object.keys(SERVICES)) await context.out.line(`  ${each}`)
    return 0
  }
  if (name === undefined) {
    for (const [each, service] of Object.entries(SERVICES)) {
      await context.out.line(`DUMP OF SERVICE ${each}:`)
      await service(context, [])
    }
    return 0
  }
  const service = Object.hasOwn(SERVICES, name) ? SERVICES[name] : undefined
  if (service !== undefined) return await service(context, args)
  await context.err.line(`Can't find service: ${name}`)
  return 0
}

export const dumpsysCommands: CommandTable = { dumpsys }
