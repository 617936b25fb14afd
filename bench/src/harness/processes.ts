/* What Linux tells of processes: proc_pid_stat(5). Clock ticks are 10 ms on every Linux that Node runs on. */
import { readdir, readFile } from 'node:fs/promises'

const TICK_MS = 10

export interface ProcessUse {
  readonly pid: number
  readonly parent: number
  readonly name: string
  /** utime + stime of all its threads. */
  readonly ownMs: number
  /** cutime + cstime: of its children that have ended and were waited for. */
  readonly endedChildrenMs: number
}

/** CPU time of one process so far, in ms. @throws Error when it is gone. */
export async function cpuMs(pid: number): Promise<number> {
  return parse(await readFile(`/proc/${pid}/stat`, 'utf8')).ownMs
}

/** All processes that can be seen now. */
export async function allProcesses(): Promise<ReadonlyMap<number, ProcessUse>> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const found = await Promise.all(
    pids.map(async (pid) => {
      // One that ends meanwhile is no process any more.
      const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
      return text === undefined ? [] : [parse(text)]
    }),
  )
  return new Map(found.flat().map((one) => [one.pid, one]))
}

/** The processes that descend from `root`, without itself. */
export function descendantsOf(root: number, all: ReadonlyMap<number, ProcessUse>): ProcessUse[] {
  const isBelow = ({ parent }: ProcessUse): boolean => {
    if (parent === root) return true
    const above = all.get(parent)
    return above !== undefined && isBelow(above)
  }
  return [...all.values()].filter(isBelow)
}

/** CPU time of a process and all below it so far, in ms, those that have ended included. */
export async function familyCpuMs(root: number): Promise<number> {
  const all = await allProcesses()
  const self = all.get(root)
  if (self === undefined) throw new Error(`process ${root} is gone`)
  const family = [self, ...descendantsOf(root, all)]
  return family.reduce((sum, one) => sum + one.ownMs + one.endedChildrenMs, 0)
}

/** The name (2nd field) stands in parentheses and may hold anything, spaces too. */
function parse(text: string): ProcessUse {
  const [open, close] = [text.indexOf('('), text.lastIndexOf(')')]
  const fields = text.slice(close + 2).split(' ')
  const number = (at: number): number => Number(fields[at - 3])
  return {
    pid: Number(text.slice(0, open)),
    parent: number(4),
    name: text.slice(open + 1, close),
    ownMs: (number(14) + number(15)) * TICK_MS,
    endedChildrenMs: (number(16) + number(17)) * TICK_MS,
  }
}
