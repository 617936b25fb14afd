import { absolute, type Command, type CommandTable, options } from '../command.ts'

const screencap: Command = async (context) => {
  const { operands } = options(context.args, 'd')
  const png = await context.phone.screen.png()
  const [path] = operands
  if (path === undefined) {
    // In pieces, so that a slow client holds one of them and not a queue.
    for (let at = 0; at < png.length; at += 65_536) await context.out.write(png.subarray(at, at + 65_536))
    return 0
  }
  const file = await context.phone.files.write(absolute(context, path), { mode: 0o660 })
  await new Promise<void>((resolve, reject) => file.once('error', reject).end(png, () => resolve()))
  return 0
}

export const screenCommands: CommandTable = { screencap }
