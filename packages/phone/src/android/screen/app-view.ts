import type { SKRSContext2D } from '@napi-rs/canvas'
import { drawText, fillCircle, fillRound, inset, strokeLine } from './draw.ts'
import { Font } from './fonts.ts'
import { drawField, drawIcon } from './launcher-view.ts'
import { calculatorCell, calculatorKeys, type Rect } from './layout.ts'
import type { AppWindow } from './screen-model.ts'
import { clockText, dateText, monthText, type View } from './view.ts'

const INK = '#1d2433'
const FAINT = '#6b7686'
const PAPER = '#f7f8fb'
const ACCENT = '#3d5afe'

type DrawContent = (ctx: SKRSContext2D, view: View, window: AppWindow) => void

/** Draws the topmost window: a title bar and what the app shows. */
export function drawWindow(ctx: SKRSContext2D, view: View, window: AppWindow): void {
  const { layout } = view
  const entry = view.packages.get(window.packageName)
  ctx.fillStyle = PAPER
  ctx.fillRect(0, 0, layout.width, layout.height)
  ctx.save()
  ctx.beginPath()
  ctx.rect(layout.content.x, layout.content.y, layout.content.width, layout.content.height)
  ctx.clip()
  const content = CONTENT[window.packageName] ?? drawInstalled
  content(ctx, view, window)
  ctx.restore()
  const { titleBar, scale } = layout
  ctx.fillStyle = PAPER
  ctx.fillRect(0, 0, layout.width, titleBar.y + titleBar.height)
  const title = { x: 20 * scale, y: titleBar.y + titleBar.height / 2 + 8 * scale }
  const style = { px: 22 * scale, color: INK, family: Font.medium, maxWidth: titleBar.width - 40 * scale }
  drawText(ctx, entry?.label ?? window.packageName, title, style)
  ctx.fillStyle = 'rgba(0,0,0,0.07)'
  ctx.fillRect(0, titleBar.y + titleBar.height - scale, layout.width, scale)
}

const drawSettings: DrawContent = (ctx, view, window) => {
  const { content, scale } = view.layout
  const rowHeight = 62 * scale
  const card: Rect = {
    x: 14 * scale,
    y:
      content.y +
      14 * scale -
      Math.min(window.scroll, overflow(view.about.length * rowHeight, content.height)),
    width: content.width - 28 * scale,
    height: view.about.length * rowHeight + 8 * scale,
  }
  fillRound(ctx, card, 20 * scale, '#ffffff')
  view.about.forEach(([title, value], i) => {
    const y = card.y + 4 * scale + i * rowHeight
    const maxWidth = card.width - 40 * scale
    drawText(
      ctx,
      title,
      { x: card.x + 20 * scale, y: y + 26 * scale },
      { px: 16 * scale, color: INK, maxWidth },
    )
    drawText(
      ctx,
      value,
      { x: card.x + 20 * scale, y: y + 47 * scale },
      { px: 13.5 * scale, color: FAINT, maxWidth },
    )
    if (i === 0) return
    ctx.fillStyle = 'rgba(0,0,0,0.06)'
    ctx.fillRect(card.x + 20 * scale, y, card.width - 40 * scale, Math.max(1, scale * 0.7))
  })
}

function overflow(needed: number, height: number): number {
  return Math.max(0, needed + 40 - height)
}

const drawFiles: DrawContent = (ctx, view, window) => {
  const { content, scale } = view.layout
  const rowHeight = 60 * scale
  const top =
    content.y + 8 * scale - Math.min(window.scroll, overflow(view.files.length * rowHeight, content.height))
  if (view.files.length === 0) drawNotice(ctx, view, 'No files on the shared storage')
  view.files.forEach((file, i) => {
    const y = top + i * rowHeight
    if (y > content.y + content.height || y + rowHeight < content.y) return
    fillCircle(
      ctx,
      { x: 40 * scale, y: y + 30 * scale, radius: 19 * scale },
      file.isDir ? '#ffe3a3' : '#dfe6ff',
    )
    if (file.isDir) {
      fillRound(
        ctx,
        { x: 31 * scale, y: y + 22 * scale, width: 9 * scale, height: 6 * scale },
        2 * scale,
        '#c98500',
      )
      fillRound(
        ctx,
        { x: 31 * scale, y: y + 25 * scale, width: 18 * scale, height: 13 * scale },
        2 * scale,
        '#c98500',
      )
    } else
      fillRound(
        ctx,
        { x: 34 * scale, y: y + 21 * scale, width: 13 * scale, height: 18 * scale },
        2 * scale,
        ACCENT,
      )
    const maxWidth = content.width - 92 * scale
    drawText(ctx, file.name, { x: 74 * scale, y: y + 27 * scale }, { px: 16 * scale, color: INK, maxWidth })
    drawText(
      ctx,
      file.detail,
      { x: 74 * scale, y: y + 46 * scale },
      { px: 13 * scale, color: FAINT, maxWidth },
    )
  })
}

const drawCalculator: DrawContent = (ctx, view, window) => {
  const { content, scale } = view.layout
  const shown = window.text === '' ? '0' : window.text
  const px = Math.min(58 * scale, (content.width * 1.7) / Math.max(1, shown.length))
  const at = { x: content.width - 26 * scale, y: content.y + content.height * 0.3 - 28 * scale }
  drawText(ctx, shown, at, {
    px,
    color: INK,
    align: 'right',
    family: Font.light,
    maxWidth: content.width - 50 * scale,
  })
  calculatorKeys.forEach((key, i) => {
    const cell = inset(calculatorCell(view.layout, i), 5 * scale)
    const operator = /[+−×÷%⌫C]/.test(key)
    const fill = key === '=' ? ACCENT : operator ? '#dfe6ff' : '#ffffff'
    fillRound(ctx, cell, Math.min(cell.width, cell.height) / 2.2, fill)
    const middle = { x: cell.x + cell.width / 2, y: cell.y + cell.height / 2 }
    if (key === '⌫') {
      drawEraser(ctx, middle, scale)
      return
    }
    const color = key === '=' ? '#ffffff' : operator ? ACCENT : INK
    drawText(ctx, key, { x: middle.x, y: middle.y + 9 * scale }, { px: 26 * scale, color, align: 'center' })
  })
}

function drawEraser(ctx: SKRSContext2D, at: { x: number; y: number }, scale: number): void {
  const p = (x: number, y: number) => [at.x + x * scale, at.y + y * scale] as const
  const style = { color: ACCENT, width: 2.2 * scale }
  strokeLine(ctx, [p(-13, 0), p(-6, -8), p(12, -8), p(12, 8), p(-6, 8), p(-13, 0)], style)
  strokeLine(ctx, [p(-1, -3), p(6, 4)], style)
  strokeLine(ctx, [p(6, -3), p(-1, 4)], style)
}

const drawClockApp: DrawContent = (ctx, view) => {
  const { content, scale } = view.layout
  const middle = { x: content.width / 2, y: content.y + content.height * 0.4 }
  const radius = Math.min(content.width, content.height) * 0.32
  fillCircle(ctx, { ...middle, radius }, '#ffffff')
  const hand = (turns: number, length: number): readonly [number, number] => [
    middle.x + Math.sin(turns * Math.PI * 2) * length,
    middle.y - Math.cos(turns * Math.PI * 2) * length,
  ]
  for (let tick = 0; tick < 60; tick += 1) {
    const [x, y] = hand(tick / 60, radius * 0.9)
    fillCircle(ctx, { x, y, radius: (tick % 5 === 0 ? 2.6 : 1.1) * scale }, tick % 5 === 0 ? INK : '#b9c0cf')
  }
  const minutes = view.now.getUTCMinutes() / 60
  strokeLine(
    ctx,
    [[middle.x, middle.y], hand(((view.now.getUTCHours() % 12) + minutes) / 12, radius * 0.5)],
    { color: INK, width: 7 * scale },
  )
  strokeLine(ctx, [[middle.x, middle.y], hand(minutes, radius * 0.75)], { color: ACCENT, width: 5 * scale })
  fillCircle(ctx, { ...middle, radius: 6 * scale }, INK)
  const below = middle.y + radius + 62 * scale
  drawText(
    ctx,
    clockText(view.now),
    { x: middle.x, y: below },
    { px: 46 * scale, color: INK, align: 'center', family: Font.light },
  )
  drawText(
    ctx,
    dateText(view.now),
    { x: middle.x, y: below + 30 * scale },
    { px: 16 * scale, color: FAINT, align: 'center' },
  )
}

const drawCalendar: DrawContent = (ctx, view) => {
  const { content, scale } = view.layout
  const { now } = view
  drawText(
    ctx,
    monthText(now),
    { x: 20 * scale, y: content.y + 42 * scale },
    { px: 20 * scale, color: INK, family: Font.medium },
  )
  const cell = content.width / 7
  const first = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), 1)).getUTCDay()
  const days = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 0)).getUTCDate()
  const height = Math.min(cell, (content.height - 110 * scale) / 6)
  ;['S', 'M', 'T', 'W', 'T', 'F', 'S'].forEach((day, i) => {
    drawText(
      ctx,
      day,
      { x: cell * (i + 0.5), y: content.y + 80 * scale },
      { px: 13 * scale, color: FAINT, align: 'center' },
    )
  })
  for (let day = 1; day <= days; day += 1) {
    const slot = first + day - 1
    const x = cell * ((slot % 7) + 0.5)
    const y = content.y + 112 * scale + Math.floor(slot / 7) * height
    const today = day === now.getUTCDate()
    if (today) fillCircle(ctx, { x, y: y - 5.5 * scale, radius: 18 * scale }, ACCENT)
    drawText(
      ctx,
      String(day),
      { x, y },
      { px: 15.5 * scale, color: today ? '#ffffff' : INK, align: 'center' },
    )
  }
}

const drawBrowser: DrawContent = (ctx, view, window) => {
  const { field, scale } = view.layout
  fillRound(ctx, field, field.height / 2, '#e8ebf3')
  const rect = { ...field, x: field.x + 20 * scale, width: field.width - 40 * scale }
  drawField(ctx, {
    text: window.text,
    hint: 'Search or type an address',
    focused: window.focused,
    rect,
    scale,
  })
  drawNotice(
    ctx,
    view,
    window.text === '' || window.focused ? 'New tab' : 'This phone has no internet connection',
  )
}

const drawCamera: DrawContent = (ctx, view) => {
  const { content, scale } = view.layout
  ctx.fillStyle = '#11151c'
  ctx.fillRect(content.x, content.y, content.width, content.height)
  const middle = { x: content.width / 2, y: content.y + content.height / 2 }
  drawText(ctx, 'No camera connected', middle, { px: 17 * scale, color: '#aeb7c6', align: 'center' })
}

function drawNotice(ctx: SKRSContext2D, view: View, text: string): void {
  const { content, scale } = view.layout
  const at = { x: content.width / 2, y: content.y + content.height / 2 }
  drawText(ctx, text, at, {
    px: 17 * scale,
    color: FAINT,
    align: 'center',
    maxWidth: content.width - 40 * scale,
  })
}

/** The simulated phone runs no app code: an installed app's window says what it is. */
const drawInstalled: DrawContent = (ctx, view, window) => {
  const { content, scale } = view.layout
  const entry = view.packages.get(window.packageName)
  const label = entry?.label ?? window.packageName
  const size = 112 * scale
  const x = content.width / 2
  const top = content.y + Math.max(24 * scale, content.height * 0.22)
  drawIcon(ctx, view, { packageName: window.packageName, label, x: x - size / 2, y: top, size })
  const maxWidth = content.width - 48 * scale
  const y = top + size
  drawText(
    ctx,
    label,
    { x, y: y + 48 * scale },
    { px: 26 * scale, color: INK, align: 'center', family: Font.medium, maxWidth },
  )
  drawText(
    ctx,
    window.packageName,
    { x, y: y + 78 * scale },
    { px: 15 * scale, color: FAINT, align: 'center', maxWidth },
  )
  if (entry === undefined) return
  const version = `Version ${entry.versionName} (${entry.versionCode})`
  drawText(
    ctx,
    version,
    { x, y: y + 102 * scale },
    { px: 15 * scale, color: FAINT, align: 'center', maxWidth },
  )
}

const CONTENT: Readonly<Record<string, DrawContent>> = {
  'com.android.settings': drawSettings,
  'com.android.documentsui': drawFiles,
  'com.android.calculator2': drawCalculator,
  'com.android.deskclock': drawClockApp,
  'com.android.calendar': drawCalendar,
  'org.chromium.webview_shell': drawBrowser,
  'com.android.camera2': drawCamera,
}
