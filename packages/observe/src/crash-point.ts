/**
 * A named place in the code at which a drill may kill the process, make it hang or make it throw. In production nothing
 * is armed and `reach` returns at once. Armed by `CLOUDPHONE_CRASH_POINTS`, a comma-separated list of
 * `<name>[@<nth visit>]=<kill|hang|throw>`; the process dies by a real SIGKILL, so no handler of ours can tidy up.
 */
export interface CrashPoints {
  reach(name: string): Promise<void>
}

type Fault = 'kill' | 'hang' | 'throw'

/** Reads the armed crash points from a setting; an empty or absent setting arms none. Throws on a malformed one. */
export function crashPoints(setting: string | undefined): CrashPoints {
  const armed = new Map<string, { nth: number; fault: Fault; visits: number }>()
  for (const part of (setting ?? '').split(',').filter((one) => one !== '')) {
    const match = /^([\w.:-]+)(?:@(\d+))?=(kill|hang|throw)$/.exec(part)
    if (match?.[1] === undefined)
      throw new Error(`CLOUDPHONE_CRASH_POINTS: '${part}' is not <name>[@<nth>]=<kill|hang|throw>`)
    armed.set(match[1], { nth: Number(match[2] ?? 1), fault: match[3] as Fault, visits: 0 })
  }
  return {
    reach: async (name) => {
      const point = armed.get(name)
      if (point === undefined || ++point.visits !== point.nth) return
      if (point.fault === 'throw') throw new Error(`crash point ${name}`)
      if (point.fault === 'kill') process.kill(process.pid, 'SIGKILL')
      await new Promise<never>(() => undefined)
    },
  }
}
