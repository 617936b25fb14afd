import { createHash } from 'node:crypto'
import type { SKRSContext2D } from '@napi-rs/canvas'
import { SYSTEM_APPS } from '../packages/system-apps.ts'
import { drawText, fillCircle, fillRound, strokeLine, textWidth } from './draw.ts'
import { Font } from './fonts.ts'
import { drawGlyph, drawLetter } from './glyphs.ts'
import { type AppIcon, arrange, dockCell, gridCell, type Rect } from './layout.ts'
import { clockText, dateText, type View } from './view.ts'

/** Hues that look well in pairs; which pair a phone gets follows from its id, so phones can be told apart at a glance. */
const PALETTES = [
  ['#0f2027', '#2c5364', '#5ce1c6'],
  ['#1a1147', '#5b2a86', '#ff7eb3'],
  ['#0b1d51', '#2f55d4', '#7fd8ff'],
  ['#23074d', '#b0306a', '#ffb36b'],
  ['#062925', '#13735f', '#b8f2a0'],
  ['#1b1b3a', '#693668', '#f9a26c'],
] as const

function drawWallpaper(ctx: SKRSContext2D, view: View): void {
  const { width, height } = view.layout
  const digest = createHash('sha256').update(view.phone.id).digest()
  const [dark, middle, light] = PALETTES[(digest[0] ?? 0) % PALETTES.length] ?? PALETTES[0]
  const sky = ctx.createLinearGradient(0, 0, width * 0.35, height)
  sky.addColorStop(0, dark)
  sky.addColorStop(0.62, middle)
  sky.addColorStop(1, light)
  ctx.fillStyle = sky
  ctx.fillRect(0, 0, width, height)
  // Three hills of light, placed by the id.
  for (let hill = 0; hill < 3; hill += 1) {
    const x = width * ((digest[hill * 2 + 1] ?? 0) / 255)
    const y = height * (0.45 + 0.5 * ((digest[hill * 2 + 2] ?? 0) / 255))
    const radius = Math.max(width, height) * (0.3 + 0.12 * hill)
    const glow = ctx.createRadialGradient(x, y, 0, x, y, radius)
    glow.addColorStop(0, `${light}55`)
    glow.addColorStop(1, `${light}00`)
    ctx.fillStyle = glow
    ctx.fillRect(0, 0, width, height)
  }
}

export function drawLauncher(ctx: SKRSContext2D, view: View): void {
  const { layout, state } = view
  drawWallpaper(ctx, view)
  drawClock(ctx, view)
  drawSearch(ctx, view)
  const { dock, page, pages } = arrange(view.apps, state, layout)
  for (const [i, app] of page.entries())
    drawApp(ctx, view, { app, cell: gridCell(layout, i), labelled: true })
  if (page.length === 0 && state.search.text.trim() !== '') {
    const { grid, scale } = layout
    const at = { x: grid.x + grid.width / 2, y: grid.y + 40 * scale }
    drawText(ctx, 'No apps found', at, { px: 15 * scale, color: 'rgba(255,255,255,0.8)', align: 'center' })
  }
  drawDots(ctx, view, pages)
  fillRound(ctx, layout.dock, 26 * layout.scale, 'rgba(255,255,255,0.16)')
  for (const [i, app] of dock.entries())
    drawApp(ctx, view, { app, cell: dockCell(layout, i), labelled: false })
}

function drawClock(ctx: SKRSContext2D, view: View): void {
  const { clock, scale, compact } = view.layout
  const px = (compact ? 52 : 88) * scale
  const align = compact ? 'left' : 'center'
  const x = compact ? clock.x : clock.x + clock.width / 2
  const y = clock.y + px
  drawText(
    ctx,
    clockText(view.now),
    { x, y },
    { px, color: '#ffffff', align, family: Font.light, shadow: true },
  )
  const date = { px: 17 * scale, color: 'rgba(255,255,255,0.92)', align, shadow: true } as const
  drawText(ctx, dateText(view.now), { x, y: y + (compact ? 24 : 34) * scale }, date)
}

function drawSearch(ctx: SKRSContext2D, view: View): void {
  const { search, scale } = view.layout
  const { text, focused } = view.state.search
  fillRound(ctx, search, search.height / 2, focused ? '#ffffff' : 'rgba(255,255,255,0.9)')
  const middle = search.y + search.height / 2
  const lens = { x: search.x + 26 * scale, y: middle - 1.5 * scale, radius: 6.5 * scale }
  ctx.strokeStyle = '#5f6b7a'
  ctx.lineWidth = 2.2 * scale
  ctx.beginPath()
  ctx.arc(lens.x, lens.y, lens.radius, 0, Math.PI * 2)
  ctx.stroke()
  const handle = [
    [lens.x + 5 * scale, lens.y + 5 * scale],
    [lens.x + 10 * scale, lens.y + 10 * scale],
  ] as const
  strokeLine(ctx, handle, { color: '#5f6b7a', width: 2.6 * scale })
  drawField(ctx, {
    text,
    hint: 'Search apps',
    focused,
    rect: { ...search, x: search.x + 46 * scale, width: search.width - 66 * scale },
    scale,
  })
}

/** The text of a field with its cursor; a text too long for it shows its end, where one types. */
export function drawField(
  ctx: SKRSContext2D,
  field: { text: string; hint: string; focused: boolean; rect: Rect; scale: number },
): void {
  const { rect, scale, text, focused } = field
  const px = 16 * scale
  const y = rect.y + rect.height / 2 + px * 0.35
  let shown = text.replaceAll('\n', ' ')
  while (shown !== '' && textWidth(ctx, shown, { px }) > rect.width) shown = [...shown].slice(4).join('')
  if (text === '') drawText(ctx, field.hint, { x: rect.x, y }, { px, color: '#8a93a3', maxWidth: rect.width })
  else drawText(ctx, shown, { x: rect.x, y }, { px, color: '#1d2433' })
  if (!focused) return
  const x = rect.x + (text === '' ? 0 : textWidth(ctx, shown, { px }) + 2 * scale)
  fillRound(ctx, { x, y: y - px, width: 2 * scale, height: px * 1.25 }, scale, '#3d5afe')
}

function drawApp(
  ctx: SKRSContext2D,
  view: View,
  where: { app: AppIcon; cell: Rect; labelled: boolean },
): void {
  const { app, cell, labelled } = where
  const { scale } = view.layout
  const size = 58 * scale
  const x = cell.x + (cell.width - size) / 2
  const y = labelled ? cell.y + 6 * scale : cell.y + (cell.height - size) / 2
  drawGround(ctx, { x: x + size / 2, y: y + size / 2, radius: size / 2 })
  drawIcon(ctx, view, { packageName: app.packageName, label: app.label, x, y, size })
  if (!labelled) return
  const at = { x: cell.x + cell.width / 2, y: y + size + 19 * scale }
  const style = { px: 13 * scale, color: '#ffffff', align: 'center', shadow: true } as const
  drawText(ctx, app.label, at, { ...style, maxWidth: cell.width - 8 * scale })
}

/** An icon's shadow: one gradient. The canvas's own shadows blur every shape of a glyph and took half of the time. */
function drawGround(ctx: SKRSContext2D, at: { x: number; y: number; radius: number }): void {
  const y = at.y + at.radius * 0.1
  const reach = at.radius * 1.14
  const shade = ctx.createRadialGradient(at.x, y, at.radius * 0.82, at.x, y, reach)
  shade.addColorStop(0, 'rgba(0,0,0,0.34)')
  shade.addColorStop(1, 'rgba(0,0,0,0)')
  ctx.fillStyle = shade
  ctx.fillRect(at.x - reach, y - reach, reach * 2, reach * 2)
}

/** An app's icon: drawn for the system's own, from the APK for installed ones, else a letter. */
export function drawIcon(
  ctx: SKRSContext2D,
  view: View,
  icon: { packageName: string; label: string; x: number; y: number; size: number },
): void {
  const system = SYSTEM_APPS.find((each) => each.packageName === icon.packageName)
  const image = view.images.get(icon.packageName)
  if (system !== undefined) drawGlyph(ctx, system.glyph, { ...icon, now: view.now })
  else if (image !== undefined) ctx.drawImage(image, icon.x, icon.y, icon.size, icon.size)
  else drawLetter(ctx, icon, icon)
}

function drawDots(ctx: SKRSContext2D, view: View, pages: number): void {
  if (pages < 2) return
  const { layout, state } = view
  const y = layout.dock.y - 10 * layout.scale
  for (let page = 0; page < pages; page += 1) {
    const x = layout.width / 2 + (page - (pages - 1) / 2) * 14 * layout.scale
    const color = page === state.page ? '#ffffff' : 'rgba(255,255,255,0.4)'
    fillCircle(ctx, { x, y, radius: 3.2 * layout.scale }, color)
  }
}
