import type { Node } from 'unbash'
import type { Internals } from '../internals.ts'

/** What a shell knows, and a subshell gets a copy of. */
export interface ShellState {
  cwd: string
  variables: Map<string, string>
  exported: Set<string>
  functions: Map<string, Node>
  args: readonly string[]
  status: number
}

export function initialState(phone: Internals): ShellState {
  const variables = new Map([
    ['PATH', '/system/bin'],
    ['HOME', '/'],
    ['PWD', '/'],
    ['SHELL', '/system/bin/sh'],
    ['USER', 'shell'],
    ['LOGNAME', 'shell'],
    ['HOSTNAME', 'generic_x86'],
    ['TERM', 'xterm-256color'],
    ['TMPDIR', '/data/local/tmp'],
    ['EXTERNAL_STORAGE', '/sdcard'],
    ['ANDROID_ROOT', '/system'],
    ['ANDROID_DATA', '/data'],
    ['ANDROID_SERIAL', phone.properties.get('ro.serialno')],
  ])
  return {
    cwd: '/',
    exported: new Set(variables.keys()),
    variables,
    functions: new Map(),
    args: ['/system/bin/sh'],
    status: 0,
  }
}
