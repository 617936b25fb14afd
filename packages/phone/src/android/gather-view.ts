import type { PhoneEntry } from './android.ts'
import type { Internals } from './internals.ts'
import type { View } from './screen/view.ts'

type Gathered = Pick<View, 'phone' | 'battery' | 'now' | 'about' | 'files'>

/** What the screen shows of the rest of the phone. */
export async function gatherView(internals: Internals): Promise<Gathered> {
  const { profile, battery, properties } = internals
  const top = internals.screen.state.windows.at(-1)?.packageName
  return {
    phone: { id: profile.id, name: profile.name },
    battery,
    now: localTime(internals.now(), properties.get('persist.sys.timezone')),
    about: top === 'com.android.settings' ? await about(internals) : [],
    files: top === 'com.android.documentsui' ? (await internals.files.list('/sdcard')).map(fileLine) : [],
  }
}

async function about(internals: Internals): Promise<[string, string][]> {
  const { profile, properties, files, battery, packages } = internals
  const usedMb = (await files.space.usedBytes()) / 1024 / 1024
  const installed = packages.list().filter((each) => !each.system).length
  return [
    ['Device name', profile.name],
    ['Model', profile.model],
    ['Android version', `${profile.androidVersion} (API ${properties.get('ro.build.version.sdk')})`],
    ['Screen', `${profile.width} × ${profile.height}, ${profile.dpi} dpi`],
    ['Processor', `${profile.cpuCores} cores, ${properties.get('ro.product.cpu.abi')}`],
    ['Memory', size(profile.memoryMb)],
    ['Storage', `${size(usedMb)} of ${size(profile.storageMb)} used`],
    ['Installed apps', String(installed)],
    ['Battery', `${battery.level}%`],
    ['Serial number', properties.get('ro.serialno')],
    ['Build', properties.get('ro.build.display.id')],
  ]
}

function size(megabytes: number): string {
  return megabytes >= 1024 ? `${Number((megabytes / 1024).toFixed(1))} GB` : `${Math.round(megabytes)} MB`
}

function fileLine(entry: PhoneEntry): Gathered['files'][number] {
  const isDir = (entry.mode & 0o170000) === 0o040000
  return { name: entry.name, isDir, detail: isDir ? 'Folder' : bytes(entry.size) }
}

function bytes(count: number): string {
  if (count < 1024) return `${count} B`
  if (count < 1024 * 1024) return `${(count / 1024).toFixed(1)} KB`
  return `${(count / 1024 / 1024).toFixed(1)} MB`
}

/** The wall clock of a time zone, held in the UTC fields; an unknown zone is UTC, as in Android. */
export function localTime(now: Date, timeZone: string): Date {
  try {
    const parts = new Intl.DateTimeFormat('en-US', { timeZone, ...FIELDS }).formatToParts(now)
    const field = (type: string) => Number(parts.find((each) => each.type === type)?.value)
    return new Date(
      Date.UTC(
        field('year'),
        field('month') - 1,
        field('day'),
        field('hour') % 24,
        field('minute'),
        field('second'),
      ),
    )
  } catch (error) {
    if (error instanceof RangeError) return now
    throw error
  }
}

const FIELDS = {
  hourCycle: 'h23',
  year: 'numeric',
  month: 'numeric',
  day: 'numeric',
  hour: 'numeric',
  minute: 'numeric',
  second: 'numeric',
} as const
