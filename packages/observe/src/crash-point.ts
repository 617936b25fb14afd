import { systemClock } from './clock.ts'

/**
 * A named place in the code at which a drill may make something happen. In production nothing is armed and `reach`
 * returns at once. Armed by `CLOUDPHONE_CRASH_POINTS`, a comma-separated list of `<name>[@<nth visit>]=<fault>`:
 *
 * - `kill`: the process ends by a real SIGKILL, so no handler of ours can tidy up
 * - `stop`: it freezes by SIGSTOP, until somebody sends SIGCONT
 * - `throw`: the place throws an error
 * - `hang`, `hang=<ms>`: the place does not return, or returns late; the rest of the process goes on
 * - `signal`: from that visit on, every visit waits for the word of the watcher that a drill's process was given
 */
export interface CrashPoints {
  reach(name: string): Promise<void>
}

/** What happens at a point. `go`: nothing. */
export type CrashAct = 'go' | 'kill' | 'stop' | 'throw' | 'hang' | `hang=${number}`

/** How a process that is at a `signal` point learns what shall happen: asks whoever watches it, over a channel of theirs. */
export type AskWatcher = (name: string) => Promise<CrashAct>

interface Armed {
  readonly nth: number
  readonly fault: CrashAct | 'signal'
  visits: number
}

const POINT = /^([\w.:-]+)(?:@(\d+))?=(kill|stop|throw|hang|hang=\d+|signal)$/

/**
 * Reads the armed crash points from a setting; an empty or absent setting arms none. Throws on a malformed one, and on a
 * `signal` without a watcher to ask.
 */
export function crashPoints(setting: string | undefined, ask?: AskWatcher): CrashPoints {
  const armed = new Map<string, Armed>()
  for (const part of (setting ?? '').split(',').filter((one) => one !== '')) {
    const [, name, nth, fault] = POINT.exec(part) ?? []
    if (name === undefined)
      throw new Error(
        `CLOUDPHONE_CRASH_POINTS: '${part}' is not <name>[@<nth>]=<kill|stop|throw|hang|hang=ms|signal>`,
      )
    if (fault === 'signal' && ask === undefined)
      throw new Error(`CLOUDPHONE_CRASH_POINTS: '${part}' needs a process that has a watcher`)
    armed.set(name, { nth: Number(nth ?? 1), fault: fault as Armed['fault'], visits: 0 })
  }
  if (armed.size === 0) return { reach: async () => undefined }
  return {
    reach: async (name) => {
      const point = armed.get(name)
      if (point === undefined) return
      point.visits += 1
      if (point.fault !== 'signal') {
        if (point.visits === point.nth) await act(name, point.fault)
      } else if (ask !== undefined && point.visits >= point.nth) await act(name, await ask(name))
    },
  }
}

async function act(name: string, fault: CrashAct): Promise<void> {
  if (fault === 'go') return
  if (fault === 'throw') throw new Error(`crash point ${name}`)
  // Frozen inside this very call, since the signal is our own; it returns after SIGCONT.
  if (fault === 'stop') return void process.kill(process.pid, 'SIGSTOP')
  if (fault.startsWith('hang=')) return await systemClock.sleep(Number(fault.slice('hang='.length)))
  if (fault === 'kill') process.kill(process.pid, 'SIGKILL')
  await new Promise<never>(() => undefined)
}
