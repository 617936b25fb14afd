import type { CommandTable } from '../command.ts'
import { packageCommands } from './packages.ts'
import { propertyCommands } from './properties.ts'
import { screenCommands } from './screen.ts'

/** Every command of the phone by its name in /system/bin. */
export const COMMANDS: CommandTable = { ...propertyCommands, ...packageCommands, ...screenCommands }
