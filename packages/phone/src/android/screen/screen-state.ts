/* Terminology:
 * - screen state: everything about the screen that is not elsewhere: what is open, what was typed, which page
 * - surroundings: what the screen is laid out over: its size and the apps to show; belongs to others, changes with them
 * - input: what a finger or a key does, or a command such as `am start`
 */
import { type AppIcon, arrange, type CalculatorKey, hitTest, type Layout } from './layout.ts'
import { type AppWindow, type ScreenState, topWindow } from './screen-model.ts'

export type ScreenInput =
  | { readonly kind: 'booted' }
  | { readonly kind: 'tap'; readonly x: number; readonly y: number }
  | {
      readonly kind: 'swipe'
      readonly fromX: number
      readonly fromY: number
      readonly toX: number
      readonly toY: number
    }
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'key'; readonly key: string }
  | { readonly kind: 'open'; readonly packageName: string; readonly activity: string }
  | { readonly kind: 'close'; readonly packageName: string }

/** What the reducer looks at besides the state. */
export interface Surroundings {
  readonly layout: Layout
  readonly apps: readonly AppIcon[]
}

const MAX_TEXT = 2000
const MAX_WINDOWS = 32
/** Fingers that move less than this tap. */
const TAP_SLOP_DP = 8

/** The next state. Pure: the same inputs over the same surroundings give the same screen. */
export function reduce(state: ScreenState, input: ScreenInput, around: Surroundings): ScreenState {
  switch (input.kind) {
    case 'booted':
      return { ...state, booted: true }
    case 'tap':
      return state.awake && state.booted ? tap(state, input, around) : state
    case 'swipe':
      return state.awake && state.booted ? swipe(state, input, around) : state
    case 'text':
      return state.awake && state.booted ? type(state, input.text) : state
    case 'key':
      return key(state, input.key)
    case 'open':
      return open(state, input)
    case 'close':
      return { ...state, windows: state.windows.filter((each) => each.packageName !== input.packageName) }
  }
}

function open(state: ScreenState, app: { packageName: string; activity: string }): ScreenState {
  const known = state.windows.find((each) => each.packageName === app.packageName)
  const window = known ?? { ...app, text: '', focused: false, scroll: 0 }
  const others = state.windows.filter((each) => each !== known).slice(-MAX_WINDOWS + 1)
  return {
    ...state,
    search: { ...state.search, focused: false },
    windows: [...others, { ...window, activity: app.activity }],
  }
}

function home(state: ScreenState): ScreenState {
  return { ...state, windows: [], page: 0, search: { text: '', focused: false } }
}

function back(state: ScreenState): ScreenState {
  const top = topWindow(state)
  if (top?.focused) return changeTop(state, { focused: false })
  if (top !== undefined) return { ...state, windows: state.windows.slice(0, -1) }
  return { ...state, search: { text: '', focused: false } }
}

function changeTop(state: ScreenState, change: Partial<AppWindow>): ScreenState {
  const top = topWindow(state)
  return top === undefined
    ? state
    : { ...state, windows: [...state.windows.slice(0, -1), { ...top, ...change }] }
}

function tap(state: ScreenState, at: { x: number; y: number }, around: Surroundings): ScreenState {
  const hit = hitTest(state, at, around)
  switch (hit.kind) {
    case 'back':
      return back(state)
    case 'home':
    case 'recents':
      return home(state)
    case 'icon':
      return open(state, hit.app)
    case 'search':
      return { ...state, search: { ...state.search, focused: true } }
    case 'field':
      return changeTop(state, { focused: true })
    case 'calculator':
      return changeTop(state, { text: press(topWindow(state)?.text ?? '', hit.key) })
    case 'nothing':
      return topWindow(state) === undefined
        ? { ...state, search: { ...state.search, focused: false } }
        : changeTop(state, { focused: false })
  }
}

function swipe(
  state: ScreenState,
  move: { fromX: number; fromY: number; toX: number; toY: number },
  around: Surroundings,
): ScreenState {
  const dx = move.toX - move.fromX
  const dy = move.toY - move.fromY
  const slop = TAP_SLOP_DP * around.layout.scale
  if (Math.abs(dx) < slop && Math.abs(dy) < slop) return tap(state, { x: move.fromX, y: move.fromY }, around)
  if (topWindow(state) !== undefined) {
    const scroll = Math.max(0, (topWindow(state)?.scroll ?? 0) - dy)
    return Math.abs(dy) > Math.abs(dx)
      ? changeTop(state, { scroll: Math.min(scroll, around.layout.height * 2) })
      : state
  }
  if (Math.abs(dx) <= Math.abs(dy)) return state
  const { pages } = arrange(around.apps, state, around.layout)
  return { ...state, page: Math.min(pages - 1, Math.max(0, state.page - Math.sign(dx))) }
}

function type(state: ScreenState, text: string): ScreenState {
  const top = topWindow(state)
  if (top !== undefined)
    return top.focused ? changeTop(state, { text: (top.text + text).slice(0, MAX_TEXT) }) : state
  if (!state.search.focused) return state
  return { ...state, search: { ...state.search, text: (state.search.text + text).slice(0, MAX_TEXT) } }
}

/** Typed characters of keys that have one; names as in android.view.KeyEvent without `KEYCODE_`. */
function characterOf(name: string): string | undefined {
  if (/^[A-Z]$/.test(name)) return name.toLowerCase()
  if (/^[0-9]$/.test(name)) return name
  const named: Readonly<Record<string, string>> = {
    SPACE: ' ',
    COMMA: ',',
    PERIOD: '.',
    SLASH: '/',
    MINUS: '-',
    PLUS: '+',
    EQUALS: '=',
    AT: '@',
    SEMICOLON: ';',
    APOSTROPHE: "'",
    STAR: '*',
    POUND: '#',
  }
  return named[name]
}

function key(state: ScreenState, name: string): ScreenState {
  if (name === 'POWER') return { ...state, awake: !state.awake }
  if (name === 'WAKEUP') return { ...state, awake: true }
  if (name === 'SLEEP') return { ...state, awake: false }
  if (!state.awake || !state.booted) return state
  if (name === 'HOME' || name === 'APP_SWITCH') return home(state)
  if (name === 'BACK' || name === 'ESCAPE') return back(state)
  if (name === 'DEL') return erase(state)
  if (name === 'ENTER') return topWindow(state)?.focused ? changeTop(state, { focused: false }) : state
  const character = characterOf(name)
  return character === undefined ? state : type(state, character)
}

function erase(state: ScreenState): ScreenState {
  const shorter = (text: string) => [...text].slice(0, -1).join('')
  const top = topWindow(state)
  if (top?.focused) return changeTop(state, { text: shorter(top.text) })
  if (top !== undefined || !state.search.focused) return state
  return { ...state, search: { ...state.search, text: shorter(state.search.text) } }
}

/** One key of the calculator: an expression grows until `=` makes it a number. */
function press(text: string, button: CalculatorKey): string {
  if (button === 'C') return ''
  if (button === '⌫') return text.slice(0, -1)
  if (button === '=') return calculate(text)
  return text.length < 24 ? (text === 'Error' ? button : text + button) : text
}

/** Left to right by precedence: × and ÷ before + and −. */
export function calculate(text: string): string {
  const tokens = text.match(/\d+\.?\d*|\.\d+|[+−×÷%]/g) ?? []
  const numbers: number[] = []
  const operators: string[] = []
  const apply = (): void => {
    const right = numbers.pop() ?? Number.NaN
    const left = numbers.pop() ?? Number.NaN
    const operator = operators.pop()
    numbers.push(
      operator === '+'
        ? left + right
        : operator === '−'
          ? left - right
          : operator === '×'
            ? left * right
            : operator === '÷'
              ? left / right
              : left % right,
    )
  }
  const rank = (operator: string | undefined) => (operator === '+' || operator === '−' ? 1 : 2)
  for (const token of tokens) {
    if (/\d/.test(token)) numbers.push(Number(token))
    else {
      while (operators.length > 0 && rank(operators.at(-1)) >= rank(token)) apply()
      operators.push(token)
    }
  }
  while (operators.length > 0) apply()
  const [result] = numbers
  if (result === undefined) return ''
  return Number.isFinite(result) ? String(Number(result.toPrecision(12))) : 'Error'
}
