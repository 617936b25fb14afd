import type { SKRSContext2D } from '@napi-rs/canvas'
import { Font, fontFor } from './fonts.ts'
import type { Rect } from './layout.ts'

export interface TextStyle {
  readonly px: number
  readonly color: string
  readonly family?: string
  readonly align?: 'left' | 'center' | 'right'
  /** Longer texts end in an ellipsis. */
  readonly maxWidth?: number
  readonly shadow?: boolean
}

/** Draws one line of text; `y` is its baseline. */
export function drawText(
  ctx: SKRSContext2D,
  text: string,
  at: { x: number; y: number },
  style: TextStyle,
): void {
  ctx.save()
  ctx.font = fontFor(text, { family: style.family ?? Font.regular, px: style.px })
  ctx.fillStyle = style.color
  ctx.textAlign = style.align ?? 'left'
  if (style.shadow) {
    ctx.shadowColor = 'rgba(0,0,0,0.35)'
    ctx.shadowBlur = style.px * 0.3
    ctx.shadowOffsetY = style.px * 0.06
  }
  ctx.fillText(fit(ctx, text, style.maxWidth), at.x, at.y)
  ctx.restore()
}

/** The width of a text in pixels. */
export function textWidth(ctx: SKRSContext2D, text: string, style: { px: number; family?: string }): number {
  ctx.save()
  ctx.font = fontFor(text, { family: style.family ?? Font.regular, px: style.px })
  const { width } = ctx.measureText(text)
  ctx.restore()
  return width
}

function fit(ctx: SKRSContext2D, text: string, maxWidth: number | undefined): string {
  if (maxWidth === undefined || ctx.measureText(text).width <= maxWidth) return text
  // By code points, so that no surrogate pair is cut; binary search, since labels can be long.
  const points = [...text]
  let low = 0
  let high = points.length
  while (low < high) {
    const middle = Math.ceil((low + high) / 2)
    if (ctx.measureText(`${points.slice(0, middle).join('').trimEnd()}…`).width <= maxWidth) low = middle
    else high = middle - 1
  }
  return `${points.slice(0, low).join('').trimEnd()}…`
}

export function fillRound(
  ctx: SKRSContext2D,
  rect: Rect,
  radius: number,
  fill: string | CanvasGradient,
): void {
  ctx.fillStyle = fill
  ctx.beginPath()
  ctx.roundRect(rect.x, rect.y, rect.width, rect.height, radius)
  ctx.fill()
}

export type CanvasGradient = ReturnType<SKRSContext2D['createLinearGradient']>

export function fillCircle(
  ctx: SKRSContext2D,
  at: { x: number; y: number; radius: number },
  fill: string,
): void {
  ctx.fillStyle = fill
  ctx.beginPath()
  ctx.arc(at.x, at.y, at.radius, 0, Math.PI * 2)
  ctx.fill()
}

export function strokeLine(
  ctx: SKRSContext2D,
  points: readonly (readonly [number, number])[],
  style: { color: string; width: number },
): void {
  ctx.strokeStyle = style.color
  ctx.lineWidth = style.width
  ctx.lineCap = 'round'
  ctx.lineJoin = 'round'
  ctx.beginPath()
  points.forEach(([x, y], i) => {
    if (i === 0) ctx.moveTo(x, y)
    else ctx.lineTo(x, y)
  })
  ctx.stroke()
}

/** A rectangle moved inwards on all sides. */
export function inset(rect: Rect, by: number): Rect {
  return { x: rect.x + by, y: rect.y + by, width: rect.width - by * 2, height: rect.height - by * 2 }
}
