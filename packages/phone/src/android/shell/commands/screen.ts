import { setTimeout as delay } from 'node:timers/promises'
import { touchScreen } from '../../apps.ts'
import { absolute, type Command, type CommandContext, type CommandTable, options } from '../command.ts'

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

/** android.view.KeyEvent's codes that the screen or the phone answers to. */
const KEY_CODES: Readonly<Record<number, string>> = {
  3: 'HOME',
  4: 'BACK',
  17: 'STAR',
  18: 'POUND',
  24: 'VOLUME_UP',
  25: 'VOLUME_DOWN',
  26: 'POWER',
  55: 'COMMA',
  56: 'PERIOD',
  62: 'SPACE',
  66: 'ENTER',
  67: 'DEL',
  69: 'MINUS',
  70: 'EQUALS',
  74: 'SEMICOLON',
  75: 'APOSTROPHE',
  76: 'SLASH',
  77: 'AT',
  81: 'PLUS',
  82: 'MENU',
  111: 'ESCAPE',
  187: 'APP_SWITCH',
  223: 'SLEEP',
  224: 'WAKEUP',
}

/** The key's name without `KEYCODE_`; undefined for one that Android does not know either. */
function keyName(text: string): string | undefined {
  if (/^\d+$/.test(text)) {
    const code = Number(text)
    if (code >= 7 && code <= 16) return String(code - 7)
    if (code >= 29 && code <= 54) return String.fromCharCode(65 + code - 29)
    return KEY_CODES[code] ?? (code > 0 && code < 320 ? `KEYCODE_${code}` : undefined)
  }
  const name = text.toUpperCase().replace(/^KEYCODE_/, '')
  return /^[A-Z0-9_]+$/.test(name) ? name : undefined
}

async function numbers(
  context: CommandContext,
  texts: readonly string[],
  count: number,
): Promise<number[] | undefined> {
  const values = texts.map(Number)
  if (texts.length >= count && values.every(Number.isFinite)) return values
  await context.err.line('Error: Invalid arguments for command: input')
  return undefined
}

const MAX_GESTURE_MS = 60_000

const input: Command = async (context) => {
  const sources = ['touchscreen', 'keyboard', 'mouse', 'dpad', 'touchpad', 'stylus', 'gamepad']
  const [verb = '', ...args] = sources.includes(context.args[0] ?? '') ? context.args.slice(1) : context.args
  const { phone } = context
  switch (verb) {
    case 'tap': {
      const [x = 0, y = 0] = (await numbers(context, args.slice(0, 2), 2)) ?? [Number.NaN]
      if (Number.isNaN(x)) return 255
      touchScreen(phone, { kind: 'tap', x, y })
      return 0
    }
    case 'swipe':
    case 'draganddrop': {
      const values = await numbers(context, args.slice(0, 5), 4)
      if (values === undefined) return 255
      const [fromX = 0, fromY = 0, toX = 0, toY = 0, durationMs = 300] = values
      await delay(Math.min(Math.max(0, durationMs), MAX_GESTURE_MS), undefined, { signal: context.signal })
      touchScreen(phone, { kind: 'swipe', fromX, fromY, toX, toY })
      return 0
    }
    case 'text':
      // As Android's own: %s is a space, since adb splits arguments.
      touchScreen(phone, { kind: 'text', text: args.join(' ').replaceAll('%s', ' ') })
      return 0
    case 'keyevent':
      for (const arg of args.filter((each) => !each.startsWith('--'))) {
        const key = keyName(arg)
        if (key === undefined) {
          await context.err.line(`Error: Unknown keycode: ${arg}`)
          return 255
        }
        touchScreen(phone, { kind: 'key', key })
      }
      return 0
    default:
      await context.err.line(`Error: Unknown command: ${verb}`)
      await context.err.line('Usage: input [<source>] text|keyevent|tap|swipe ...')
      return 255
  }
}

const MIN_SIZE = 200
const MAX_SIZE = 4096

const wm: Command = async (context) => {
  const [what, value] = context.args
  const { display, profile } = context.phone
  if (what === 'size') {
    if (value === undefined) {
      await context.out.line(`Physical size: ${profile.width}x${profile.height}`)
      if (display.size !== undefined)
        await context.out.line(`Override size: ${display.size.width}x${display.size.height}`)
      return 0
    }
    if (value === 'reset') {
      const { size: _old, ...rest } = display
      context.phone.display = rest
      return 0
    }
    const [, width = 0, height = 0] = (/^(\d+)x(\d+)$/.exec(value) ?? []).map(Number)
    if (Math.min(width, height) < MIN_SIZE || Math.max(width, height) > MAX_SIZE) {
      await context.err.line(`Error: bad size ${value}: between ${MIN_SIZE} and ${MAX_SIZE} pixels`)
      return 255
    }
    context.phone.display = { ...display, size: { width, height } }
    return 0
  }
  if (what === 'density') return await density(context, value)
  await context.err.line('usage: wm size [reset|WxH] | density [reset|DENSITY]')
  return 255
}

async function density(context: CommandContext, value: string | undefined): Promise<number> {
  const { display, profile } = context.phone
  if (value === undefined) {
    await context.out.line(`Physical density: ${profile.dpi}`)
    if (display.density !== undefined) await context.out.line(`Override density: ${display.density}`)
    return 0
  }
  if (value === 'reset') {
    const { density: _old, ...rest } = display
    context.phone.display = rest
    return 0
  }
  const number = Number(value)
  if (!Number.isInteger(number) || number < 72 || number > 1000) {
    await context.err.line('Error: density must be between 72 and 1000')
    return 255
  }
  context.phone.display = { ...display, density: number }
  return 0
}

export const screenCommands: CommandTable = { screencap, input, wm }
