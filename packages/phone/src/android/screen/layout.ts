import { type ScreenState, topWindow } from './screen-model.ts'

/** An app as the launcher shows it. */
export interface AppIcon {
  readonly packageName: string
  readonly activity: string
  readonly label: string
}

export interface Rect {
  readonly x: number
  readonly y: number
  readonly width: number
  readonly height: number
}

/** Where things are, in pixels. Drawing and touching use the same rectangles, so what is seen is what is hit. */
export interface Layout {
  readonly width: number
  readonly height: number
  /** Pixels of one design unit: a phone is 400 of them wide, whatever its resolution. */
  readonly scale: number
  /** Too low for clock, search and icons one below the other. */
  readonly compact: boolean
  readonly statusBar: Rect
  readonly navigation: Rect
  readonly buttons: { readonly back: Rect; readonly home: Rect; readonly recents: Rect }
  readonly clock: Rect
  readonly search: Rect
  readonly grid: Rect
  readonly columns: number
  readonly perPage: number
  readonly dock: Rect
  /** Of an open app. */
  readonly titleBar: Rect
  readonly content: Rect
  readonly field: Rect
}

const DOCK_SIZE = 4
const DESIGN_WIDTH = 400
const CELL = { width: 92, height: 92 }

/** Lays out a screen; `zoom` is the density override relative to the phone's own. */
export function layoutOf(size: { width: number; height: number; zoom: number }): Layout {
  const { width, height } = size
  const scale = (Math.min(width, height) / DESIGN_WIDTH) * Math.min(1.6, Math.max(0.5, size.zoom))
  const u = (units: number) => units * scale
  // Landscape, square, or a density so large that clock, search and icons do not fit below each other.
  const compact = height < u(520)
  const statusBar = { x: 0, y: 0, width, height: u(28) }
  const navigation = { x: 0, y: height - u(44), width, height: u(44) }
  const third = width / 3
  const button = (index: number): Rect => ({ ...navigation, x: third * index, width: third })
  const dock = { x: u(16), y: navigation.y - u(100), width: width - u(32), height: u(92) }
  const clock = compact
    ? { x: u(24), y: u(36), width: width / 2 - u(24), height: u(84) }
    : { x: 0, y: u(48), width, height: u(150) }
  const search = compact
    ? { x: width / 2, y: u(54), width: width / 2 - u(24), height: u(48) }
    : { x: u(20), y: u(210), width: width - u(40), height: u(50) }
  const gridTop = compact ? u(136) : u(278)
  const columns = Math.max(1, Math.floor((width - u(32)) / u(CELL.width)))
  const rows = Math.max(1, Math.floor((dock.y - u(10) - gridTop) / u(CELL.height)))
  const titleBar = { x: 0, y: statusBar.height, width, height: u(60) }
  const contentTop = titleBar.y + titleBar.height
  return {
    width,
    height,
    scale,
    compact,
    statusBar,
    navigation,
    buttons: { back: button(0), home: button(1), recents: button(2) },
    clock,
    search,
    grid: { x: u(16), y: gridTop, width: width - u(32), height: rows * u(CELL.height) },
    columns,
    perPage: columns * rows,
    dock,
    titleBar,
    content: { x: 0, y: contentTop, width, height: navigation.y - contentTop },
    field: { x: u(16), y: contentTop + u(16), width: width - u(32), height: u(48) },
  }
}

/** Splits the apps into the dock's and the pages'; a search shows what matches instead. */
export function arrange(
  apps: readonly AppIcon[],
  state: ScreenState,
  layout: Layout,
): { dock: readonly AppIcon[]; page: readonly AppIcon[]; pages: number } {
  const wanted = state.search.text.trim().toLowerCase()
  const dock = apps.slice(0, DOCK_SIZE)
  const rest =
    wanted === '' ? apps.slice(DOCK_SIZE) : apps.filter(({ label }) => label.toLowerCase().includes(wanted))
  const pages = Math.max(1, Math.ceil(rest.length / layout.perPage))
  const page = wanted === '' ? Math.min(state.page, pages - 1) : 0
  return { dock, pages, page: rest.slice(page * layout.perPage, (page + 1) * layout.perPage) }
}

/** The cell of the n-th icon on a page. */
export function gridCell(layout: Layout, index: number): Rect {
  const width = layout.grid.width / layout.columns
  const height = CELL.height * layout.scale
  return {
    x: layout.grid.x + (index % layout.columns) * width,
    y: layout.grid.y + Math.floor(index / layout.columns) * height,
    width,
    height,
  }
}

export function dockCell(layout: Layout, index: number): Rect {
  const width = layout.dock.width / DOCK_SIZE
  return { ...layout.dock, x: layout.dock.x + index * width, width }
}

export const calculatorKeys = [
  ...(['C', '⌫', '%', '÷'] as const),
  ...(['7', '8', '9', '×'] as const),
  ...(['4', '5', '6', '−'] as const),
  ...(['1', '2', '3', '+'] as const),
  ...(['0', '.', '='] as const),
] as const

export type CalculatorKey = (typeof calculatorKeys)[number]

/** The n-th key of the calculator; the last one is two wide. */
export function calculatorCell(layout: Layout, index: number): Rect {
  const { content } = layout
  const top = content.y + content.height * 0.3
  const width = content.width / 4
  const height = (content.y + content.height - top) / 5
  const last = index === calculatorKeys.length - 1
  return {
    x: (index % 4) * width,
    y: top + Math.floor(index / 4) * height,
    width: last ? width * 2 : width,
    height,
  }
}

const APPS_WITH_FIELD: readonly string[] = ['org.chromium.webview_shell']

export type Hit =
  | { readonly kind: 'back' | 'home' | 'recents' | 'search' | 'field' | 'nothing' }
  | { readonly kind: 'icon'; readonly app: AppIcon }
  | { readonly kind: 'calculator'; readonly key: CalculatorKey }

/** What a finger at this point touches. */
export function hitTest(
  state: ScreenState,
  at: { x: number; y: number },
  around: { layout: Layout; apps: readonly AppIcon[] },
): Hit {
  const { layout } = around
  for (const kind of ['back', 'home', 'recents'] as const)
    if (contains(layout.buttons[kind], at)) return { kind }
  const top = topWindow(state)
  if (top !== undefined) return hitWindow(top.packageName, at, layout)
  if (contains(layout.search, at)) return { kind: 'search' }
  const { dock, page } = arrange(around.apps, state, layout)
  const docked = dock.find((_app, i) => contains(dockCell(layout, i), at))
  const app = docked ?? page.find((_app, i) => contains(gridCell(layout, i), at))
  return app === undefined ? { kind: 'nothing' } : { kind: 'icon', app }
}

function hitWindow(packageName: string, at: { x: number; y: number }, layout: Layout): Hit {
  if (APPS_WITH_FIELD.includes(packageName) && contains(layout.field, at)) return { kind: 'field' }
  if (packageName === 'com.android.calculator2') {
    const key = calculatorKeys.find((_key, i) => contains(calculatorCell(layout, i), at))
    if (key !== undefined) return { kind: 'calculator', key }
  }
  return { kind: 'nothing' }
}

export function contains(rect: Rect, at: { x: number; y: number }): boolean {
  return at.x >= rect.x && at.x < rect.x + rect.width && at.y >= rect.y && at.y < rect.y + rect.height
}
