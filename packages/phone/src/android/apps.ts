import type { Internals } from './internals.ts'
import { LAUNCHER } from './packages/system-apps.ts'
import type { ScreenInput } from './screen/screen-state.ts'

/** Opens an app: its window, its process and the log line that tools wait for. */
export function startApp(phone: Internals, app: { packageName: string; activity: string }): void {
  if (app.packageName === LAUNCHER) phone.screen.apply({ kind: 'key', key: 'HOME' })
  else phone.screen.apply({ kind: 'open', ...app })
  run(phone, app.packageName, app.activity)
}

/** Ends an app: window and process. */
export function stopApp(phone: Internals, packageName: string): void {
  phone.screen.apply({ kind: 'close', packageName })
  const pid = phone.processes.find(packageName)?.pid
  if (pid === undefined || !phone.processes.stop(packageName)) return
  const server = phone.processes.find('system_server')?.pid ?? 1
  const message = `Force stopping ${packageName}: from pid ${pid}`
  phone.log.write({ priority: 'I', tag: 'ActivityManager', message, pid: server })
}

/** A finger or a key on the screen; an app that it opens starts to run. */
export function touchScreen(phone: Internals, input: ScreenInput): void {
  const { opened } = phone.screen.apply(input)
  const window = phone.screen.state.windows.at(-1)
  if (opened !== undefined && window?.packageName === opened) run(phone, opened, window.activity)
}

function run(phone: Internals, packageName: string, activity: string): void {
  const entry = phone.packages.get(packageName)
  const known = phone.processes.find(packageName)
  const user = entry === undefined || entry.uid < 10_000 ? 'system' : `u0_a${entry.uid - 10_000}`
  const { pid } = phone.processes.start({ name: packageName, user, residentKb: 64_000 })
  const server = phone.processes.find('system_server')?.pid ?? 1
  const tell = (tag: string, message: string) => phone.log.write({ priority: 'I', tag, message, pid: server })
  tell(
    'ActivityTaskManager',
    `START u0 {act=android.intent.action.MAIN cmp=${packageName}/${activity}} from uid 2000`,
  )
  if (known === undefined)
    tell(
      'ActivityManager',
      `Start proc ${pid}:${packageName}/${user} for top-activity {${packageName}/${activity}}`,
    )
  tell('ActivityTaskManager', `Displayed ${packageName}/${activity}`)
}
