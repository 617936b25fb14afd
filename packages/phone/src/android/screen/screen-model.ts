export interface AppWindow {
  readonly packageName: string
  readonly activity: string
  /** What the calculator or the browser's address line shows. */
  readonly text: string
  readonly focused: boolean
  /** Pixels that the content is scrolled up. */
  readonly scroll: number
}

export interface ScreenState {
  readonly awake: boolean
  readonly booted: boolean
  readonly page: number
  readonly search: { readonly text: string; readonly focused: boolean }
  /** Open windows, the topmost last; none means the launcher. */
  readonly windows: readonly AppWindow[]
}

export const INITIAL_SCREEN: ScreenState = {
  awake: true,
  booted: false,
  page: 0,
  search: { text: '', focused: false },
  windows: [],
}

/** The window in front; undefined on the launcher. */
export function topWindow(state: ScreenState): AppWindow | undefined {
  return state.windows.at(-1)
}
