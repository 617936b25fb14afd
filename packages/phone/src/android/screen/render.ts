import { type Canvas, createCanvas, type SKRSContext2D } from '@napi-rs/canvas'
import { drawWindow } from './app-view.ts'
import { drawText, fillRound, strokeLine } from './draw.ts'
import { Font, registerFonts } from './fonts.ts'
import { drawLauncher } from './launcher-view.ts'
import { topWindow } from './screen-model.ts'
import { clockText, type View } from './view.ts'

/** Draws one picture of the screen on a canvas of its own. */
export function render(view: View): Canvas {
  registerFonts()
  const { width, height } = view.layout
  const canvas = createCanvas(width, height)
  const ctx = canvas.getContext('2d')
  ctx.fillStyle = '#000000'
  ctx.fillRect(0, 0, width, height)
  if (!view.state.awake) return canvas
  if (!view.state.booted) {
    drawBoot(ctx, view)
    return canvas
  }
  const top = topWindow(view.state)
  if (top === undefined) drawLauncher(ctx, view)
  else drawWindow(ctx, view, top)
  const ink = top === undefined ? '#ffffff' : '#1d2433'
  drawStatusBar(ctx, view, ink)
  drawNavigation(ctx, view, ink)
  return canvas
}

function drawBoot(ctx: SKRSContext2D, view: View): void {
  const { width, height, scale } = view.layout
  const at = { x: width / 2, y: height / 2 }
  drawText(ctx, 'Cloudphone', at, { px: 40 * scale, color: '#ffffff', align: 'center', family: Font.light })
  const style = { px: 14 * scale, color: '#8a93a3', align: 'center' } as const
  drawText(ctx, 'starting', { x: at.x, y: at.y + 34 * scale }, style)
}

function drawStatusBar(ctx: SKRSContext2D, view: View, ink: string): void {
  const { statusBar, scale, width } = view.layout
  const baseline = statusBar.height / 2 + 5 * scale
  const style = { px: 13.5 * scale, color: ink, family: Font.medium }
  drawText(ctx, clockText(view.now), { x: 18 * scale, y: baseline }, style)
  const right = width - 18 * scale
  const level = view.battery.level
  drawText(ctx, `${level}%`, { x: right, y: baseline }, { ...style, align: 'right' })
  const battery = {
    x: right - 55 * scale,
    y: statusBar.height / 2 - 5 * scale,
    width: 18 * scale,
    height: 10 * scale,
  }
  ctx.globalAlpha = 0.45
  fillRound(ctx, battery, 2.5 * scale, ink)
  fillRound(
    ctx,
    { x: battery.x + battery.width + scale, y: battery.y + 3 * scale, width: 1.6 * scale, height: 4 * scale },
    scale,
    ink,
  )
  ctx.globalAlpha = 1
  fillRound(
    ctx,
    { ...battery, width: (battery.width * level) / 100 },
    2.5 * scale,
    level <= 15 ? '#e5484d' : ink,
  )
  drawNetwork(ctx, { x: battery.x - 24 * scale, y: statusBar.height / 2 - 5 * scale, scale }, ink)
}

/** A wired network's sign: cloud phones have no radio. */
function drawNetwork(ctx: SKRSContext2D, at: { x: number; y: number; scale: number }, ink: string): void {
  const p = (x: number, y: number) => [at.x + x * at.scale, at.y + y * at.scale] as const
  const style = { color: ink, width: 1.8 * at.scale }
  strokeLine(ctx, [p(4, 0), p(4, 9)], style)
  strokeLine(ctx, [p(1, 3), p(4, 0), p(7, 3)], style)
  strokeLine(ctx, [p(11, 1), p(11, 10)], style)
  strokeLine(ctx, [p(8, 7), p(11, 10), p(14, 7)], style)
}

function drawNavigation(ctx: SKRSContext2D, view: View, ink: string): void {
  const { buttons, scale } = view.layout
  const middle = (rect: { x: number; y: number; width: number; height: number }) => ({
    x: rect.x + rect.width / 2,
    y: rect.y + rect.height / 2,
  })
  const style = { color: ink, width: 2 * scale }
  ctx.globalAlpha = 0.85
  const back = middle(buttons.back)
  strokeLine(
    ctx,
    [
      [back.x + 5 * scale, back.y - 7 * scale],
      [back.x - 5 * scale, back.y],
      [back.x + 5 * scale, back.y + 7 * scale],
    ],
    style,
  )
  const home = middle(buttons.home)
  ctx.beginPath()
  ctx.arc(home.x, home.y, 7.5 * scale, 0, Math.PI * 2)
  ctx.stroke()
  const recents = middle(buttons.recents)
  ctx.beginPath()
  ctx.roundRect(recents.x - 6.5 * scale, recents.y - 6.5 * scale, 13 * scale, 13 * scale, 3 * scale)
  ctx.stroke()
  ctx.globalAlpha = 1
}
