import { readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { GlobalFonts } from '@napi-rs/canvas'

/** Families by what they are for; every text names both, so that Chinese and Japanese labels find their glyphs. */
export const Font = {
  light: 'Cloudphone Light',
  regular: 'Cloudphone Regular',
  medium: 'Cloudphone Medium',
} as const
const CJK = 'Cloudphone CJK'

const resolve = createRequire(import.meta.url).resolve

/**
 * Makes the fonts known to the canvas: Roboto and, once a text needs it, Noto Sans SC, both under the OFL from the
 * Fontsource npm packages. A bare server has no fonts at all, and a canvas without fonts draws no text without a word.
 * The registry is the canvas library's own and belongs to the process; asking twice does nothing.
 */
export function registerFonts(): void {
  if (GlobalFonts.has(Font.regular)) return
  const files = join(dirname(resolve('@fontsource/roboto/package.json')), 'files')
  const weights = { 300: Font.light, 400: Font.regular, 500: Font.medium }
  for (const [weight, family] of Object.entries(weights)) {
    for (const subset of ['latin', 'latin-ext', 'cyrillic', 'greek', 'vietnamese'])
      register(join(files, `roboto-${subset}-${weight}-normal.woff2`), family)
  }
}

/** Everything above U+2E7F may need it. Registering its 101 files takes 80 ms and 5 MB, so only when one is drawn. */
const NEEDS_CJK = /[\u2e80-\u{3ffff}]/u

/** The canvas font for a text. */
export function fontFor(text: string, options: { family: string; px: number }): string {
  if (NEEDS_CJK.test(text) && !GlobalFonts.has(CJK)) {
    const files = join(dirname(resolve('@fontsource-variable/noto-sans-sc/package.json')), 'files')
    for (const name of readdirSync(files).sort())
      if (name.endsWith('.woff2')) register(join(files, name), CJK)
  }
  return `${options.px}px "${options.family}", "${CJK}"`
}

function register(path: string, family: string): void {
  if (GlobalFonts.registerFromPath(path, family) === null)
    throw new Error(`The font ${path} cannot be loaded`)
}
