import type { PhoneProfile } from '../android.ts'
import type { Properties } from '../state/properties.ts'
import { EMPTY_DIR, link, textFile, type VirtualNode, virtualTree } from './virtual-tree.ts'

/** The read-only part of the phone's files. */
export function androidTree(options: {
  profile: PhoneProfile
  properties: Properties
  /** Names in /system/bin. */
  commands: readonly string[]
  systemPackages: readonly { path: string; label: string }[]
  now: () => Date
  startedAt: Date
  /** The kernel gives up: `echo c > /proc/sysrq-trigger`, as Linux's documentation of sysrq names it. */
  panic: () => void
}): VirtualNode {
  const { profile, properties, now, startedAt } = options
  const uptime = () => (now().getTime() - startedAt.getTime()) / 1000
  const nodes: Record<string, VirtualNode> = {
    '/data': { kind: 'mount' },
    '/sdcard': link('/data/media/0'),
    '/storage/emulated/0': link('/data/media/0'),
    '/storage/self/primary': link('/data/media/0'),
    '/mnt/sdcard': link('/data/media/0'),
    '/etc': link('/system/etc'),
    '/bin': link('/system/bin'),
    '/dev/null': { kind: 'device', device: 'null' },
    '/dev/zero': { kind: 'device', device: 'zero' },
    '/vendor': EMPTY_DIR,
    '/cache': EMPTY_DIR,
    '/system/build.prop': textFile(() => buildProp(properties)),
    '/system/etc/hosts': textFile(() => '127.0.0.1       localhost\n::1             ip6-localhost\n'),
    '/proc/cpuinfo': textFile(() => cpuInfo(profile.cpuCores)),
    '/proc/meminfo': textFile(() => memInfo(profile.memoryMb)),
    '/proc/version': textFile(() => KERNEL),
    // A real phone lets only root do this; here whoever may use adb may also try what a crash does.
    '/proc/sysrq-trigger': {
      kind: 'trigger',
      pull: (text) => {
        if (text.trim() === 'c') options.panic()
      },
    },
    '/proc/uptime': textFile(
      () => `${uptime().toFixed(2)} ${(uptime() * profile.cpuCores * 0.95).toFixed(2)}\n`,
    ),
  }
  for (const name of options.commands) nodes[`/system/bin/${name}`] = textFile(() => '', 0o755)
  for (const { path, label } of options.systemPackages) nodes[path] = textFile(() => `${label}\n`, 0o644)
  return virtualTree(nodes)
}

export const KERNEL_RELEASE = '5.10.0-cloudphone'
const KERNEL = `Linux version ${KERNEL_RELEASE} (build@cloudphone) #1 SMP PREEMPT\n`

function buildProp(properties: Properties): string {
  const lines = properties
    .list()
    .filter(([name]) => name.startsWith('ro.build.') || name.startsWith('ro.product.'))
  return `${lines.map(([name, value]) => `${name}=${value}`).join('\n')}\n`
}

function cpuInfo(cores: number): string {
  const core = (index: number) =>
    [
      `processor\t: ${index}`,
      'vendor_id\t: Cloudphone',
      'model name\t: Cloudphone Virtual CPU',
      'cpu MHz\t\t: 2400.000',
      `siblings\t: ${cores}`,
      `cpu cores\t: ${cores}`,
      '',
    ].join('\n')
  return `${Array.from({ length: cores }, (_, index) => core(index)).join('\n')}\n`
}

/** Shares of the memory as an idle Android of this size shows them. */
export function memoryOf(memoryMb: number): { totalKb: number; freeKb: number; availableKb: number } {
  const totalKb = memoryMb * 1024
  return { totalKb, freeKb: Math.round(totalKb * 0.35), availableKb: Math.round(totalKb * 0.62) }
}

function memInfo(memoryMb: number): string {
  const { totalKb, freeKb, availableKb } = memoryOf(memoryMb)
  const line = (name: string, kb: number) => `${`${name}:`.padEnd(16)}${String(kb).padStart(8)} kB\n`
  return [
    line('MemTotal', totalKb),
    line('MemFree', freeKb),
    line('MemAvailable', availableKb),
    line('Cached', availableKb - freeKb),
    line('SwapTotal', 0),
    line('SwapFree', 0),
  ].join('')
}
