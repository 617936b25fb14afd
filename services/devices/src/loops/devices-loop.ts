import type { LeasedLoop, Leases } from '@cloudphone/lease/lease'
import type { Sagas } from '@cloudphone/saga/engine'
import type { AdbKeyApplier } from '../domain/adb-key-applier.ts'
import type { Deps } from '../domain/deps.ts'
import { wipeSoiled } from '../domain/handover.ts'
import type { LifecycleDefinitions } from '../domain/lifecycle-service.ts'
import { purgeRemains } from '../domain/purge.ts'
import type { Quota } from '../domain/quota.ts'
import { releaseOwedQuota } from '../domain/quota-releases.ts'
import { Reconciler } from '../domain/reconciler.ts'
import { restartDue } from '../domain/restart.ts'

const RESTART_EVERY_MS = 500
const KEYS_EVERY_MS = 2_000
const HANDOVER_EVERY_MS = 1_000
const QUOTA_EVERY_MS = 5_000
const PURGE_EVERY_MS = 3_600_000
/** The soonest that a hint makes the reconciler look again: a fleet that boots says a thousand things at once. */
const HINT_PAUSE_MS = 100

export interface LoopParts {
  readonly leases: Leases
  readonly sagas: Pick<Sagas, 'start'>
  readonly definitions: Pick<LifecycleDefinitions, 'device_start' | 'device_reset'>
  readonly keys: AdbKeyApplier
  readonly quota: Quota
}

/** The running loops. `close` ends them. */
export interface DevicesLoops {
  readonly reconcile: LeasedLoop
  readonly restart: LeasedLoop
  readonly keys: LeasedLoop
  readonly handover: LeasedLoop
  readonly quota: LeasedLoop
  close(): Promise<void>
}

/** Begins everything that is repeated; each loop runs in one of the instances. */
export function beginLoops(deps: Deps, parts: LoopParts): DevicesLoops {
  const { leases, keys, quota } = parts
  const reconciler = new Reconciler(deps)
  const restart = leases.loop({
    name: 'devices.restart',
    everyMs: RESTART_EVERY_MS,
    work: async () => await restartDue(deps, parts),
  })
  const reconcile = leases.loop({
    name: 'devices.reconcile',
    everyMs: deps.settings.DEVICES_RECONCILE_MS,
    work: async ({ signal }) => {
      await reconciler.pass(signal)
    },
  })
  const loops = {
    restart,
    reconcile,
    keys: leases.loop({
      name: 'devices.adb-keys',
      everyMs: KEYS_EVERY_MS,
      work: async () => await keys.repair(),
    }),
    handover: leases.loop({
      name: 'devices.handover',
      everyMs: HANDOVER_EVERY_MS,
      work: async () => await wipeSoiled(deps, parts),
    }),
    quota: leases.loop({
      name: 'devices.quota-releases',
      everyMs: QUOTA_EVERY_MS,
      work: async () => await releaseOwedQuota(deps, quota),
    }),
    settlement: leases.loop({
      name: 'devices.quota-settlement',
      everyMs: deps.settings.DEVICES_QUOTA_SETTLE_MS,
      work: async () => await quota.settle(),
    }),
    purge: leases.loop({
      name: 'devices.purge',
      everyMs: PURGE_EVERY_MS,
      work: async () => await purgeRemains(deps),
    }),
  }
  const watching = new AbortController()
  const watch = Promise.all(
    Object.values(deps.providers).map(async (provider) => {
      try {
        for await (const _hint of provider.watch(watching.signal)) {
          await deps.clock.sleep(HINT_PAUSE_MS, watching.signal)
          await reconcile.nudge()
        }
      } catch (error) {
        // Without hints the loop still looks every few seconds.
        if (!watching.signal.aborted) deps.telemetry.watchFailed(error)
      }
    }),
  )
  return {
    ...loops,
    close: async () => {
      watching.abort(new Error('the loops close'))
      await watch
      for (const loop of Object.values(loops)) await loop.stop()
    },
  }
}
