import type { Command, CommandTable } from '../command.ts'
import { activityCommands, am } from './activity.ts'
import { basicCommands } from './basics.ts'
import { dumpsysCommands } from './dumpsys.ts'
import { fileCommands } from './files.ts'
import { logCommands } from './logs.ts'
import { packageCommands, pm } from './packages.ts'
import { propertyCommands } from './properties.ts'
import { screenCommands } from './screen.ts'
import { settings, settingsCommands } from './settings.ts'
import { textCommands } from './text.ts'

/** `cmd <service> ...`: the services behind the commands of the same kind. */
const SERVICES: CommandTable = { package: pm, activity: am, settings }

const cmd: Command = async (context) => {
  const [service, ...args] = context.args
  if (service === '-l') {
    await context.out.line(
      ['Currently running services:', ...Object.keys(SERVICES).map((each) => `  ${each}`)].join('\n'),
    )
    return 0
  }
  const command = service !== undefined && Object.hasOwn(SERVICES, service) ? SERVICES[service] : undefined
  if (command !== undefined) return await command({ ...context, args })
  await context.err.line(`cmd: Can't find service: ${service ?? ''}`)
  return 20
}

const ALONE: CommandTable = {
  ...fileCommands,
  ...textCommands,
  ...basicCommands,
  ...propertyCommands,
  ...packageCommands,
  ...activityCommands,
  ...screenCommands,
  ...settingsCommands,
  ...dumpsysCommands,
  ...logCommands,
  cmd,
}

/** `toybox ls -l`: the small tools under one name. */
const toybox: Command = async (context) => {
  const [name, ...args] = context.args
  const tools: CommandTable = { ...fileCommands, ...textCommands, ...basicCommands }
  if (name === undefined) {
    await context.out.line(Object.keys(tools).sort().join(' '))
    return 0
  }
  const command = Object.hasOwn(tools, name) ? tools[name] : undefined
  if (command !== undefined) return await command({ ...context, name, args })
  await context.err.line(`toybox: Unknown command ${name}`)
  return 127
}

/** Every command of the phone by its name in /system/bin. */
export const COMMANDS: CommandTable = { ...ALONE, toybox }
