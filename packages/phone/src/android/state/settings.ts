import { z } from 'zod'
import { JsonFile, readJson } from './json-file.ts'

export const NAMESPACES = ['system', 'secure', 'global'] as const
export type Namespace = (typeof NAMESPACES)[number]

const DEFAULTS: Readonly<Record<Namespace, Readonly<Record<string, string>>>> = {
  system: {
    screen_brightness: '128',
    screen_off_timeout: '60000',
    accelerometer_rotation: '0',
    time_12_24: '24',
  },
  secure: { location_mode: '3', default_input_method: 'com.android.inputmethod.latin/.LatinIME' },
  global: {
    adb_enabled: '1',
    airplane_mode_on: '0',
    animator_duration_scale: '1',
    device_provisioned: '1',
    stay_on_while_plugged_in: '7',
    transition_animation_scale: '1',
    wifi_on: '1',
    window_animation_scale: '1',
  },
}
const Saved = z.object({
  system: z.record(z.string(), z.string()),
  secure: z.record(z.string(), z.string()),
  global: z.record(z.string(), z.string()),
})
const MAX_ENTRIES = 1024

/** Android's three settings tables, on disk. */
export class Settings {
  readonly #tables: Record<Namespace, Record<string, string>>
  readonly #file: JsonFile

  constructor(tables: Record<Namespace, Record<string, string>>, path: string) {
    this.#tables = tables
    this.#file = new JsonFile(path, () => this.#tables)
  }

  get(namespace: Namespace, key: string): string | undefined {
    const table = this.#tables[namespace]
    return Object.hasOwn(table, key) ? table[key] : undefined
  }

  list(namespace: Namespace): [string, string][] {
    return Object.entries(this.#tables[namespace]).sort(([a], [b]) => (a < b ? -1 : 1))
  }

  /** On disk when it resolves. False when the table is full. */
  async put(namespace: Namespace, key: string, value: string): Promise<boolean> {
    const table = this.#tables[namespace]
    if (!Object.hasOwn(table, key) && Object.keys(table).length >= MAX_ENTRIES) return false
    Object.defineProperty(table, key, { value, enumerable: true, configurable: true, writable: true })
    await this.#file.save()
    return true
  }

  /** How many went: 0 or 1. */
  async delete(namespace: Namespace, key: string): Promise<number> {
    const table = this.#tables[namespace]
    if (!Object.hasOwn(table, key)) return 0
    delete table[key]
    await this.#file.save()
    return 1
  }

  settled(): Promise<void> {
    return this.#file.settled()
  }
}

export async function openSettings(path: string, androidId: string): Promise<Settings> {
  const saved = await readJson(path)
  if (saved !== undefined) return new Settings(Saved.parse(saved), path)
  return new Settings(
    {
      system: { ...DEFAULTS.system },
      secure: { ...DEFAULTS.secure, android_id: androidId },
      global: { ...DEFAULTS.global },
    },
    path,
  )
}
