import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  arrange,
  calculatorCell,
  calculatorKeys,
  contains,
  dockCell,
  gridCell,
  layoutOf,
  type Rect,
} from './layout.ts'
import { INITIAL_SCREEN, type ScreenState, topWindow } from './screen-model.ts'
import { calculate, reduce, type ScreenInput } from './screen-state.ts'

const layout = layoutOf({ width: 1080, height: 1920, zoom: 1 })
const app = (name: string) => ({
  packageName: name,
  activity: `${name}.Main`,
  label: name.split('.').at(-1) ?? '',
})
const apps = [
  app('com.android.documentsui'),
  app('org.chromium.webview_shell'),
  app('com.android.camera2'),
  app('com.android.settings'),
  app('com.android.calculator2'),
  ...Array.from({ length: 30 }, (_, i) => app(`dev.example.app${i}`)),
]
const around = { layout, apps }
const booted: ScreenState = { ...INITIAL_SCREEN, booted: true }
const middle = (rect: Rect) => ({ x: rect.x + rect.width / 2, y: rect.y + rect.height / 2 })
const after = (inputs: readonly ScreenInput[], from = booted) =>
  inputs.reduce((state, input) => reduce(state, input, around), from)
const tap = (rect: Rect): ScreenInput => ({ kind: 'tap', ...middle(rect) })
const key = (name: string): ScreenInput => ({ kind: 'key', key: name })
const swipe = (dx: number): ScreenInput => ({
  kind: 'swipe',
  fromX: 540,
  fromY: 1000,
  toX: 540 + dx,
  toY: 1000,
})

describe('the screen', () => {
  it('opens what is tapped, in the dock and on the page that shows', () => {
    expect(topWindow(after([tap(dockCell(layout, 3))]))?.packageName).toBe('com.android.settings')
    expect(topWindow(after([tap(gridCell(layout, 1))]))?.packageName).toBe('dev.example.app0')
    const secondPage = after([swipe(-500), tap(gridCell(layout, 0))])
    expect(topWindow(secondPage)?.packageName).toBe(apps[4 + layout.perPage]?.packageName)
  })

  it('stops at the first and the last page', () => {
    const { pages } = arrange(apps, booted, layout)
    expect(after(Array.from({ length: 10 }, () => swipe(-500))).page).toBe(pages - 1)
    expect(after(Array.from({ length: 10 }, () => swipe(500))).page).toBe(0)
  })

  it('goes back one by one and home at once, by key and by button', () => {
    const three = after([0, 1, 2].map((i) => ({ kind: 'open', ...app(`a.b${i}`) })))
    expect(topWindow(after([key('BACK')], three))?.packageName).toBe('a.b1')
    expect(topWindow(after([tap(layout.buttons.back)], three))?.packageName).toBe('a.b1')
    expect(after([key('HOME')], three).windows).toEqual([])
    expect(after([tap(layout.buttons.home)], three).windows).toEqual([])
  })

  it('types into the field that has the focus, and nowhere else', () => {
    expect(after([{ kind: 'text', text: 'lost' }]).search.text).toBe('')
    const typed = after([
      tap(layout.search),
      { kind: 'text', text: 'app1' },
      key('2'),
      key('DEL'),
      key('SPACE'),
    ])
    expect(typed.search).toEqual({ text: 'app1 ', focused: true })
    expect(arrange(apps, typed, layout).page.map((each) => each.label)).toContain('app15')
    const browser = after([
      { kind: 'open', ...app('org.chromium.webview_shell') },
      { kind: 'text', text: 'lost' },
    ])
    expect(topWindow(browser)?.text).toBe('')
    expect(topWindow(after([tap(layout.field), { kind: 'text', text: 'x.org' }], browser))?.text).toBe(
      'x.org',
    )
  })

  it('calculates what its keys say', () => {
    const press = (text: string) =>
      [...text].map((each) =>
        tap(calculatorCell(layout, calculatorKeys.indexOf(each as (typeof calculatorKeys)[number]))),
      )
    const open: ScreenInput = { kind: 'open', ...app('com.android.calculator2') }
    expect(topWindow(after([open, ...press('12+6×7')]))?.text).toBe('12+6×7')
    expect(topWindow(after([open, ...press('12+6×7=')]))?.text).toBe('54')
    expect(topWindow(after([open, ...press('1÷0=')]))?.text).toBe('Error')
    expect(calculate('10−4−3')).toBe('3')
    expect(calculate('0.1+0.2')).toBe('0.3')
  })

  it('does nothing while it is off or not booted', () => {
    const off = after([key('POWER')])
    expect(after([tap(dockCell(layout, 0)), key('HOME'), { kind: 'text', text: 'x' }], off)).toEqual(off)
    expect(after([key('POWER')], off).awake).toBe(true)
    expect(after([tap(dockCell(layout, 0))], INITIAL_SCREEN)).toEqual(INITIAL_SCREEN)
  })

  it('stays sound under any inputs', () => {
    const point = fc.record({
      x: fc.integer({ min: -50, max: 1200 }),
      y: fc.integer({ min: -50, max: 2000 }),
    })
    const input: fc.Arbitrary<ScreenInput> = fc.oneof(
      point.map((at) => ({ kind: 'tap' as const, ...at })),
      fc
        .tuple(point, point)
        .map(([a, b]) => ({ kind: 'swipe' as const, fromX: a.x, fromY: a.y, toX: b.x, toY: b.y })),
      fc.string().map((text) => ({ kind: 'text' as const, text })),
      fc
        .constantFrom('HOME', 'BACK', 'POWER', 'WAKEUP', 'DEL', 'ENTER', 'A', '7', 'VOLUME_UP')
        .map((name) => key(name) as ScreenInput),
      fc.constantFrom(...apps).map((each) => ({ kind: 'open' as const, ...each })),
      fc.constantFrom(...apps).map((each) => ({ kind: 'close' as const, packageName: each.packageName })),
    )
    fc.assert(
      fc.property(fc.array(input, { maxLength: 60 }), (inputs) => {
        const state = after(inputs)
        const names = state.windows.map((each) => each.packageName)
        expect(new Set(names).size).toBe(names.length)
        expect(names.length).toBeLessThanOrEqual(32)
        expect(state.page).toBeGreaterThanOrEqual(0)
        expect(state.page).toBeLessThan(arrange(apps, booted, layout).pages)
        for (const window of state.windows) expect(window.scroll).toBeGreaterThanOrEqual(0)
      }),
      { numRuns: 300 },
    )
  })
})

describe('the layout', () => {
  it('keeps everything on the screen and apart, whatever the resolution', () => {
    for (const [width, height] of [
      [1080, 1920],
      [1920, 1080],
      [720, 1280],
      [360, 640],
      [1440, 3200],
      [800, 800],
    ] as const) {
      const one = layoutOf({ width, height, zoom: 1 })
      const cells = [
        ...Array.from({ length: one.perPage }, (_, i) => gridCell(one, i)),
        dockCell(one, 0),
        dockCell(one, 3),
      ]
      for (const rect of [one.search, one.clock, one.dock, ...cells]) {
        expect(rect.x).toBeGreaterThanOrEqual(0)
        expect(rect.x + rect.width).toBeLessThanOrEqual(width + 0.001)
        expect(rect.y + rect.height).toBeLessThanOrEqual(one.navigation.y + 0.001)
        expect(contains(one.statusBar, middle(rect))).toBe(false)
      }
      const overlapping = cells.slice(0, one.perPage).filter((cell) => contains(one.dock, middle(cell)))
      expect(overlapping, `${width}x${height}`).toEqual([])
    }
  })
})
