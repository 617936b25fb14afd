import type { Command } from 'commander'
import type { Output } from './output.ts'

/** How much of a list is wanted. */
export interface PageFlags {
  readonly limit?: string
  readonly all?: true
}

/** Adds `--limit` and `--all`. */
export function pageOptions(command: Command): Command {
  return command.option('--limit <n>', '1 to 200', '50').option('--all', 'every one there is')
}

/** The size of the pages to ask for; what is allowed is the platform's to say. */
export function pageSize({ limit, all }: PageFlags): { limit: number } {
  return { limit: all ? 200 : Number(limit) }
}

/** The first items of a list, as many as were wanted, with a note when there are more. */
export async function take<Item>(items: AsyncIterable<Item>, flags: PageFlags, out: Output): Promise<Item[]> {
  const taken: Item[] = []
  for await (const item of items) {
    if (!flags.all && taken.length >= Number(flags.limit)) {
      out.note(`There are more than ${flags.limit}: see --limit and --all.`)
      break
    }
    taken.push(item)
  }
  return taken
}
