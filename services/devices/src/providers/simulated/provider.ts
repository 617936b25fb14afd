import { DeviceId } from '@cloudphone/contracts/id'
import type { Clock } from '@cloudphone/observe/clock'
import type { PhoneView } from '@cloudphone/phone/host/host-api'
import { openPhoneHost, type PhoneHostClient, PhoneHostError } from '@cloudphone/phone/host/phone-host-client'
import { type ExitReason, type PhoneSpec, type Provider, ProviderError, type Resource } from '../provider.ts'

/** For what changes a phone and does not boot it; an injected delay of some seconds fits in. */
const CHANGE_TIMEOUT_MS = 25_000
const LIST_TIMEOUT_MS = 5_000
const RECONNECT_MS = 250

export interface SimulatedOptions {
  socketPath: string
  /** From start to `sys.boot_completed`. */
  bootMs: number
  clock: Clock
}

/** Phones of a phone host: real adb, a simulated Android. */
export function openSimulatedProvider(options: SimulatedOptions): Provider {
  const host = openPhoneHost({ socketPath: options.socketPath })
  const within = (ms: number, signal: AbortSignal | undefined) => {
    const timeout = AbortSignal.timeout(ms)
    return { signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]) }
  }
  return {
    type: 'simulated',
    capabilities: { ports: true, adb: true, screenshot: true, appInstall: true },
    create: (spec, { signal } = {}) =>
      asking(async () =>
        resourceOf(await host.create(phoneOf(spec, options.bootMs), within(CHANGE_TIMEOUT_MS, signal))),
      ),
    start: (id, { signal } = {}) =>
      asking(async () => resourceOf(await host.start(id, { wait: 'boot', ...(signal && { signal }) }))),
    stop: (id, { signal } = {}) =>
      asking(async () => void (await unlessAbsent(() => host.stop(id, within(CHANGE_TIMEOUT_MS, signal))))),
    wipe: (id, { signal } = {}) =>
      asking(async () => {
        const report = await unlessAbsent(() => host.wipe(id, within(CHANGE_TIMEOUT_MS, signal)))
        return report === undefined
          ? { method: 'absent', erased: 0, residue: [] }
          : { method: 'data_erased', ...report }
      }),
    destroy: (id, { signal } = {}) => asking(() => host.destroy(id, within(CHANGE_TIMEOUT_MS, signal))),
    probe: (id, { signal } = {}) =>
      asking(async () => {
        const view = await unlessAbsent(() => host.get(id, within(LIST_TIMEOUT_MS, signal)))
        return view === undefined ? undefined : resourceOf(view)
      }),
    list: (labels, { signal } = {}) =>
      asking(async () => {
        const { phones } = await host.list({ labels, ...within(LIST_TIMEOUT_MS, signal) })
        return phones.map(resourceOf)
      }),
    setAdbKeys: (id, keys, { signal } = {}) =>
      asking(async () => void (await host.setAdbKeys(id, keys, within(LIST_TIMEOUT_MS, signal)))),
    watch: (signal) => watch(host, options.clock, signal),
    close: () => host.close(),
  }
}

async function* watch(host: PhoneHostClient, clock: Clock, signal: AbortSignal): AsyncGenerator<void> {
  while (!signal.aborted) {
    try {
      const { seq } = await host.info({ signal })
      yield
      for await (const _event of host.events({ since: seq, signal })) yield
    } catch (error) {
      if (signal.aborted) return
      if (!(error instanceof PhoneHostError)) throw error
    }
    // Gone, restarted or too far ahead of us: whoever listens looks at the list after we are back.
    await clock.sleep(RECONNECT_MS, signal).catch(() => undefined)
  }
}

function phoneOf(spec: PhoneSpec, bootMs: number) {
  return {
    id: spec.deviceId,
    name: spec.name,
    labels: { ...spec.labels },
    profile: {
      width: spec.width,
      height: spec.height,
      dpi: spec.dpi,
      androidVersion: spec.androidVersion,
      model: spec.tablet ? 'Cloudphone Tablet' : 'Cloudphone',
      cpuCores: spec.cpuCores,
      memoryMb: spec.memoryMb,
      storageMb: spec.storageMb,
      bootMs,
    },
    adb: { host: '127.0.0.1' as const, port: spec.adbPort },
    adbKeys: [...spec.adbKeys],
    // What to do about a crash is decided by us alone: two restart policies would fight.
    restart: 'no' as const,
  }
}

function resourceOf(view: PhoneView): Resource {
  const exitReason = exitReasonOf(view)
  return {
    deviceId: DeviceId.parse(view.id),
    externalId: view.id,
    name: view.name,
    labels: view.labels,
    state: view.state,
    generation: view.generation,
    adb: view.adb,
    exitReason,
    exitText: view.exitReason,
    // A host that was killed saw nobody die: its own start is no proof of life.
    exitedAt: view.exitedAt === null || exitReason === 'host_lost' ? null : new Date(view.exitedAt),
  }
}

function exitReasonOf({ exitReason, state }: PhoneView): ExitReason | null {
  if (exitReason === null) return null
  if (state === 'stopped') {
    return exitReason === 'power_off' || exitReason === 'host_shutdown' ? exitReason : 'requested'
  }
  return exitReason === 'host_lost' ? 'host_lost' : 'crash'
}

async function unlessAbsent<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof PhoneHostError && error.status === 404) return undefined
    throw error
  }
}

/** Turns the host's errors into the port's. Only a request that can never succeed is permanent. */
async function asking<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof PhoneHostError) {
      const { code, message, status } = error
      const hopeless = status === 400 || status === 401 || status === 403
      throw new ProviderError({ code, message, retryable: !hopeless }, error)
    }
    if (error instanceof Error && error.name === 'TimeoutError') {
      const message = 'the phone host did not answer in time'
      throw new ProviderError({ code: 'host_timeout', message, retryable: true }, error)
    }
    throw error
  }
}
