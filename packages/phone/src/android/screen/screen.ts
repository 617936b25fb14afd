import { readFile } from 'node:fs/promises'
import { type Canvas, type Image, loadImage } from '@napi-rs/canvas'
import type { PackageEntry, PackageStore } from '../packages/package-store.ts'
import { SYSTEM_APPS } from '../packages/system-apps.ts'
import { type AppIcon, arrange, type Layout, layoutOf } from './layout.ts'
import { encodePng } from './png.ts'
import { render } from './render.ts'
import { INITIAL_SCREEN, type ScreenState, topWindow } from './screen-model.ts'
import { reduce, type ScreenInput } from './screen-state.ts'
import type { View } from './view.ts'

/** What the screen asks of the phone when it is drawn. */
export interface ScreenSources {
  readonly packages: PackageStore
  readonly size: () => { width: number; height: number; zoom: number }
  readonly rest: () => Promise<Pick<View, 'phone' | 'battery' | 'now' | 'about' | 'files'>>
}

/** The dock's apps, then the launcher's first page. */
const ORDER = [
  ...['com.android.documentsui', 'org.chromium.webview_shell', 'com.android.camera2', 'com.android.settings'],
  ...['com.android.deskclock', 'com.android.calendar', 'com.android.calculator2'],
]

/** The phone's screen: a state that inputs change, drawn only when somebody looks. Holds no canvas in between. */
export class Screen {
  readonly #sources: ScreenSources
  #state: ScreenState = INITIAL_SCREEN

  constructor(sources: ScreenSources) {
    this.#sources = sources
  }

  get state(): ScreenState {
    return this.#state
  }

  layout(): Layout {
    return layoutOf(this.#sources.size())
  }

  /** Applies an input; answers the package on top before and after, so that processes can follow. */
  apply(input: ScreenInput): { opened: string | undefined } {
    const before = topWindow(this.#state)?.packageName
    this.#state = reduce(this.#state, input, { layout: this.layout(), apps: this.apps() })
    const after = topWindow(this.#state)?.packageName
    return { opened: after !== before ? after : undefined }
  }

  /** The launcher's icons in their order: the system's, then installed ones by label. */
  apps(): AppIcon[] {
    const launchable = this.#sources.packages
      .list()
      .filter((each) => each.launchableActivity !== undefined && each.enabled)
    const rank = (entry: PackageEntry) => {
      const at = ORDER.indexOf(entry.packageName)
      return at < 0 ? ORDER.length : at
    }
    return launchable
      .sort((a, b) => rank(a) - rank(b) || (a.label < b.label ? -1 : a.label > b.label ? 1 : 0))
      .map(({ packageName, label, launchableActivity = '' }) => ({
        packageName,
        label,
        activity: launchableActivity,
      }))
  }

  /** Draws what the screen shows now. */
  async draw(): Promise<Canvas> {
    const layout = this.layout()
    const state = this.#state
    const apps = this.apps()
    const packages = new Map(this.#sources.packages.list().map((each) => [each.packageName, each]))
    const { dock, page } = arrange(apps, state, layout)
    const shown = topWindow(state)?.packageName
    const visible = shown === undefined ? [...dock, ...page].map((each) => each.packageName) : [shown]
    const images = await loadIcons(visible.flatMap((name) => packages.get(name) ?? []))
    const rest = await this.#sources.rest()
    return render({ state, layout, apps, packages, images, ...rest })
  }

  /** A PNG of the screen at its resolution. */
  async png(): Promise<Buffer> {
    const canvas = await this.draw()
    return await encodePng(canvas.data(), canvas)
  }
}

async function loadIcons(entries: readonly PackageEntry[]): Promise<Map<string, Image>> {
  const images = new Map<string, Image>()
  const system = new Set(SYSTEM_APPS.map((each) => each.packageName))
  for (const { packageName, iconPath } of entries) {
    if (iconPath === undefined || system.has(packageName)) continue
    // A picture that no decoder takes came with the APK: the app gets a letter instead.
    const image = await readFile(iconPath)
      .then(loadImage)
      .catch(() => undefined)
    if (image !== undefined && image.width > 0) images.set(packageName, image)
  }
  return images
}
