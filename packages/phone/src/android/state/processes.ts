export interface Process {
  readonly pid: number
  readonly ppid: number
  readonly user: string
  readonly name: string
  /** Kilobytes; what a process of its kind needs, so that meminfo adds up. */
  readonly residentKb: number
}

const SYSTEM: readonly Omit<Process, 'ppid'>[] = [
  { pid: 1, user: 'root', name: 'init', residentKb: 5200 },
  { pid: 118, user: 'logd', name: 'logd', residentKb: 9800 },
  { pid: 119, user: 'system', name: 'servicemanager', residentKb: 3600 },
  { pid: 241, user: 'root', name: 'zygote64', residentKb: 96_000 },
  { pid: 256, user: 'system', name: 'surfaceflinger', residentKb: 31_000 },
  { pid: 262, user: 'shell', name: 'adbd', residentKb: 6100 },
]
const FIRST_APP_PID = 1000
const ZYGOTE = 241

/** What runs in the phone. Pids are handed out in order and never twice in one boot. */
export class ProcessTable {
  readonly #apps = new Map<string, Process>()
  #nextPid = FIRST_APP_PID

  list(): Process[] {
    const system = SYSTEM.map((each) => ({ ...each, ppid: each.pid === 1 ? 0 : 1 }))
    return [...system, ...this.#apps.values()]
  }

  find(name: string): Process | undefined {
    return this.list().find((each) => each.name === name)
  }

  /** Starts an app's process, or answers the one that runs. */
  start(app: { name: string; user: string; residentKb: number }): Process {
    const running = this.#apps.get(app.name)
    if (running !== undefined) return running
    const process: Process = { ...app, pid: this.#nextPid, ppid: ZYGOTE }
    this.#nextPid += 17
    this.#apps.set(app.name, process)
    return process
  }

  /** True when such an app was running. */
  stop(name: string): boolean {
    return this.#apps.delete(name)
  }

  /** A pid for a command of the shell. */
  takePid(): number {
    this.#nextPid += 1
    return this.#nextPid
  }
}
