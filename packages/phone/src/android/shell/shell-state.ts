import type { Node } from 'unbash'
import type { Internals } from '../internals.ts'
import { ExpansionError, MAX_WORD_BYTES } from './expand.ts'

const MAX_VARIABLES = 1024

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

/** A copy that a subshell may change without its parent's knowing. */
export function copyOf({ variables, exported, functions, ...rest }: ShellState): ShellState {
  return {
    ...rest,
    variables: new Map(variables),
    exported: new Set(exported),
    functions: new Map(functions),
  }
}

/** A variable or a positional parameter; undefined when it is not set. */
export function readVariable(state: ShellState, name: string): string | undefined {
  if (name === '?') return String(state.status)
  if (name === '#') return String(Math.max(0, state.args.length - 1))
  if (name === '@' || name === '*') return state.args.slice(1).join(' ')
  if (/^\d+$/.test(name)) return state.args[Number(name)] ?? (name === '0' ? '/system/bin/sh' : undefined)
  return state.variables.get(name)
}

/** @throws ExpansionError when the value is too long, or there are too many variables already. */
export function assignVariable({ variables }: ShellState, name: string, value: string): void {
  const isFull = variables.size >= MAX_VARIABLES && !variables.has(name)
  if (value.length > MAX_WORD_BYTES || isFull) throw new ExpansionError(`${name}: too large`)
  variables.set(name, value)
}

/** `export NAME` or `export NAME=value`. */
export function exportVariable(state: ShellState, text: string): void {
  const at = text.indexOf('=')
  const name = at < 0 ? text : text.slice(0, at)
  if (at >= 0) assignVariable(state, name, text.slice(at + 1))
  state.exported.add(name)
}

/** What a command finds in its environment: the exported variables, and what is assigned for it alone. */
export function environmentOf(
  { variables, exported }: ShellState,
  assignments: readonly [string, string][],
): Map<string, string> {
  const env = new Map<string, string>()
  for (const name of exported) {
    const value = variables.get(name)
    if (value !== undefined) env.set(name, value)
  }
  for (const [name, value] of assignments) env.set(name, value)
  return env
}
