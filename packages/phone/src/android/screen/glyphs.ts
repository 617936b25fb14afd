import type { SKRSContext2D } from '@napi-rs/canvas'
import type { Glyph } from '../packages/system-apps.ts'
import { drawText, fillCircle, fillRound, strokeLine } from './draw.ts'
import { Font } from './fonts.ts'

/** Draws on a plate of 100 x 100 units whose origin has been moved to the icon's corner. */
type Draw = (ctx: SKRSContext2D, now: Date) => void

const plate = (ctx: SKRSContext2D, from: string, to: string): void => {
  const gradient = ctx.createLinearGradient(0, 0, 0, 100)
  gradient.addColorStop(0, from)
  gradient.addColorStop(1, to)
  ctx.fillStyle = gradient
  ctx.beginPath()
  ctx.arc(50, 50, 50, 0, Math.PI * 2)
  ctx.fill()
}

const settings: Draw = (ctx) => {
  plate(ctx, '#8e9aaf', '#5c677d')
  ctx.save()
  ctx.translate(50, 50)
  ctx.fillStyle = '#ffffff'
  for (let tooth = 0; tooth < 8; tooth += 1) {
    ctx.beginPath()
    ctx.roundRect(-6.5, -31, 13, 16, 4)
    ctx.fill()
    ctx.rotate(Math.PI / 4)
  }
  ctx.restore()
  fillCircle(ctx, { x: 50, y: 50, radius: 22 }, '#ffffff')
  fillCircle(ctx, { x: 50, y: 50, radius: 10 }, '#6b768c')
}

const browser: Draw = (ctx) => {
  plate(ctx, '#4facfe', '#2f6fed')
  const style = { color: '#ffffff', width: 4.5 }
  ctx.strokeStyle = style.color
  ctx.lineWidth = style.width
  for (const radiusX of [27, 12]) {
    ctx.beginPath()
    ctx.ellipse(50, 50, radiusX, 27, 0, 0, Math.PI * 2)
    ctx.stroke()
  }
  strokeLine(
    ctx,
    [
      [23, 50],
      [77, 50],
    ],
    style,
  )
  strokeLine(
    ctx,
    [
      [28, 36],
      [72, 36],
    ],
    style,
  )
  strokeLine(
    ctx,
    [
      [28, 64],
      [72, 64],
    ],
    style,
  )
}

const files: Draw = (ctx) => {
  plate(ctx, '#ffd166', '#f4a000')
  fillRound(ctx, { x: 24, y: 29, width: 26, height: 16 }, 5, '#ffffff')
  fillRound(ctx, { x: 24, y: 35, width: 52, height: 36 }, 6, '#ffffff')
  fillRound(ctx, { x: 32, y: 47, width: 36, height: 4.5 }, 2, '#f4a000')
}

const camera: Draw = (ctx) => {
  plate(ctx, '#5f6b7a', '#2b3440')
  fillRound(ctx, { x: 38, y: 26, width: 24, height: 14 }, 4, '#ffffff')
  fillRound(ctx, { x: 22, y: 33, width: 56, height: 40 }, 9, '#ffffff')
  fillCircle(ctx, { x: 50, y: 53, radius: 14 }, '#2b3440')
  fillCircle(ctx, { x: 50, y: 53, radius: 8 }, '#4facfe')
}

const clock: Draw = (ctx, now) => {
  plate(ctx, '#ffffff', '#e6e9f2')
  const hand = (turns: number, length: number): [number, number] => [
    50 + Math.sin(turns * Math.PI * 2) * length,
    50 - Math.cos(turns * Math.PI * 2) * length,
  ]
  const minutes = now.getUTCMinutes() / 60
  const hours = ((now.getUTCHours() % 12) + minutes) / 12
  for (let tick = 0; tick < 12; tick += 1)
    fillCircle(ctx, { x: hand(tick / 12, 38)[0], y: hand(tick / 12, 38)[1], radius: 1.8 }, '#aab2c5')
  strokeLine(ctx, [[50, 50], hand(hours, 19)], { color: '#1f2a44', width: 6 })
  strokeLine(ctx, [[50, 50], hand(minutes, 30)], { color: '#3d5afe', width: 4.5 })
  fillCircle(ctx, { x: 50, y: 50, radius: 4.5 }, '#1f2a44')
}

const calculator: Draw = (ctx) => {
  plate(ctx, '#43d9ad', '#0fa07a')
  fillRound(ctx, { x: 31, y: 24, width: 38, height: 52 }, 7, '#ffffff')
  fillRound(ctx, { x: 36, y: 30, width: 28, height: 11 }, 3, '#0fa07a')
  for (const x of [39.5, 50, 60.5])
    for (const y of [49, 58.5, 68]) fillCircle(ctx, { x, y, radius: 3.1 }, x > 60 ? '#ffb703' : '#0fa07a')
}

const calendar: Draw = (ctx, now) => {
  plate(ctx, '#ff8a80', '#e5484d')
  fillRound(ctx, { x: 26, y: 27, width: 48, height: 47 }, 8, '#ffffff')
  fillRound(ctx, { x: 26, y: 27, width: 48, height: 13 }, 6, '#b3262b')
  const day = String(now.getUTCDate())
  drawText(ctx, day, { x: 50, y: 66 }, { px: 25, color: '#b3262b', align: 'center', family: Font.medium })
}

const GLYPHS: Partial<Record<Glyph, Draw>> = { settings, browser, files, camera, clock, calculator, calendar }

/** Draws a system app's icon as a circle of the size given. */
export function drawGlyph(
  ctx: SKRSContext2D,
  glyph: Glyph,
  options: { x: number; y: number; size: number; now: Date },
): void {
  const draw = GLYPHS[glyph]
  if (draw === undefined) return
  ctx.save()
  ctx.translate(options.x, options.y)
  ctx.scale(options.size / 100, options.size / 100)
  draw(ctx, options.now)
  ctx.restore()
}

const COLORS = ['#3d5afe', '#00897b', '#d81b60', '#8e24aa', '#f4511e', '#3949ab', '#00acc1', '#7cb342']

/** The icon of an app that has no raster of its own: its first letter on a colour of its name. */
export function drawLetter(
  ctx: SKRSContext2D,
  app: { packageName: string; label: string },
  at: { x: number; y: number; size: number },
): void {
  let hash = 0
  for (const char of app.packageName) hash = (Math.imul(hash, 31) + (char.codePointAt(0) ?? 0)) | 0
  const radius = at.size / 2
  fillCircle(
    ctx,
    { x: at.x + radius, y: at.y + radius, radius },
    COLORS[Math.abs(hash) % COLORS.length] ?? '#3d5afe',
  )
  const letter = [...app.label.trim()][0]?.toUpperCase() ?? '?'
  const px = at.size * 0.5
  drawText(
    ctx,
    letter,
    { x: at.x + radius, y: at.y + radius + px * 0.36 },
    { px, color: '#ffffff', align: 'center', family: Font.medium },
  )
}
