import { NAMESPACES, type Namespace } from '../../state/settings.ts'
import type { Command, CommandTable } from '../command.ts'

export const settings: Command = async (context) => {
  const args = context.args.filter((each, i, all) => each !== '--user' && all[i - 1] !== '--user')
  const [verb, namespace, key, ...rest] = args
  const table = NAMESPACES.find((each) => each === namespace)
  if (table === undefined || (verb !== 'list' && key === undefined)) {
    await context.err.line(
      `Invalid arguments\nusage: settings get|put|delete|list ${NAMESPACES.join('|')} [KEY [VALUE]]`,
    )
    return 255
  }
  return await carryOut({ verb, table, key: key ?? '', value: rest[0] }, context)
}

async function carryOut(
  what: { verb: string | undefined; table: Namespace; key: string; value: string | undefined },
  { out, err, phone }: Parameters<Command>[0],
): Promise<number> {
  const { verb, table, key, value } = what
  switch (verb) {
    case 'get':
      await out.line(phone.settings.get(table, key) ?? 'null')
      return 0
    case 'put':
      if (
        value === undefined ||
        key.length > 256 ||
        value.length > 65_536 ||
        !(await phone.settings.put(table, key, value))
      ) {
        await err.line('Invalid arguments')
        return 255
      }
      return 0
    case 'delete':
      await out.line(`Deleted ${await phone.settings.delete(table, key)} rows`)
      return 0
    case 'list':
      for (const [name, content] of phone.settings.list(table)) await out.line(`${name}=${content}`)
      return 0
    default:
      await err.line(`Invalid command: ${verb ?? ''}`)
      return 255
  }
}

export const settingsCommands: CommandTable = { settings }
