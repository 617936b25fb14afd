import { PropertyError } from '../../state/properties.ts'
import type { Command, CommandTable } from '../command.ts'

const getprop: Command = async ({ args, out, phone }) => {
  const [name, fallback = ''] = args
  if (name !== undefined) await out.line(phone.properties.get(name) || fallback)
  else for (const [key, value] of phone.properties.list()) await out.line(`[${key}]: [${value}]`)
  return 0
}

const setprop: Command = async ({ args, err, phone }) => {
  const [name, value] = args
  if (name === undefined || value === undefined) {
    await err.line('usage: setprop NAME VALUE\n\nSets an Android system property.')
    return 1
  }
  try {
    await phone.properties.setByShell(name, value)
    return 0
  } catch (error) {
    if (!(error instanceof PropertyError)) throw error
    await err.line(error.message)
    return 1
  }
}

export const propertyCommands: CommandTable = { getprop, setprop }
