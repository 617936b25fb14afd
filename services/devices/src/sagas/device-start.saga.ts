import { DeviceStarted } from '@cloudphone/contracts/events/device-events'
import { afterCommit, type Tx } from '@cloudphone/db/database'
import { saga } from '@cloudphone/saga/builder'
import type { TurnedBack } from '@cloudphone/saga/definition'
import { lockDevice, moveDevice, scheduleRestart, touchDevice } from '../db/device-repo.ts'
import { heldPort } from '../db/port-repo.ts'
import type { DevicesSchema } from '../db/schema.ts'
import type { AdbKeyApplier } from '../domain/adb-key-applier.ts'
import type { Deps } from '../domain/deps.ts'
import { restartDelayMs } from '../domain/device.ts'
import { fact, statusChanged, tell } from '../domain/facts.ts'
import { phoneSpec } from '../domain/phone-spec.ts'
import type { LifecycleInput } from '../domain/saga-inputs.ts'
import { problems } from '../errors.ts'
import { bootPhone } from '../providers/boot.ts'
import { deviceOf, refuseStale } from './lifecycle-steps.ts'

/** Four boots that get stuck, and room to spare. */
const TIMEOUT_MS = 600_000
/** A provider that does not answer says nothing about the phone: such tries do not use the policy's attempts up. */
const PROVIDER_AWAY: ReadonlySet<string> = new Set(['host_unreachable', 'host_timeout', 'shutting_down'])
const PROVIDER_PAUSE_MS = 2_000

/** Starts a stopped or failed device; a phone that has disappeared is made again first, with an empty /data. */
export function deviceStart(deps: Deps, keys: AdbKeyApplier) {
  const step = startSteps(deps, keys)
  return saga('device_start', 1, { timeoutMs: TIMEOUT_MS })
    .input<LifecycleInput, Tx<DevicesSchema>>()
    .call('ENSURE_PROVIDER_DEVICE', async (s, { signal }) => await step.ensure(s, signal))
    .call('START_DEVICE', async (s, { signal, attempt }) => await step.start(s, signal, attempt), {
      timeoutMs: (deps.settings.DEVICES_BOOT_WAIT_SECONDS + 30) * 1000,
      record: async (tx, s) => await step.record(tx, s),
    })
    .undo(async (s, { signal }) => await step.stop(s, signal))
    .onCompensated(async (tx, s, turnedBack) => await step.giveUp(tx, s, turnedBack))
    .end()
}

/** What starting a phone is made of, for every saga that does it. */
export function startSteps(deps: Deps, keys: AdbKeyApplier) {
  const { database, outbox, providers, settings, clock, telemetry } = deps
  return {
    ensure: async (input: LifecycleInput, signal: AbortSignal) => {
      const row = await deviceOf(deps, input.deviceId)
      refuseStale(row, input)
      const adbPort = (await heldPort(database.kysely, row.id)) ?? 0
      const place = { nodeId: row.node_id ?? '', adbPort, adbKeys: await keys.keysFor(row) }
      await providers[row.provider_type].create(phoneSpec(row, place), { signal })
    },

    start: async (input: LifecycleInput, signal: AbortSignal, attempt: number) => {
      const row = await deviceOf(deps, input.deviceId)
      refuseStale(row, input)
      const provider = providers[row.provider_type]
      if (attempt > 1) await provider.stop(row.id, { signal })
      // Before it listens: a key that was taken away while the phone was off must not open it.
      if (!(await keys.ensure(row.id))) throw problems.adb_keys_pending({ deviceId: row.id })
      const waitSeconds = settings.DEVICES_BOOT_WAIT_SECONDS
      const { generation } = await bootPhone(provider, row.id, { waitSeconds, signal })
      return { generation }
    },

    record: async (tx: Tx<DevicesSchema>, s: LifecycleInput & { generation: number }) => {
      const before = await lockDevice(tx, s.deviceId)
      if (before === undefined) throw problems.device_not_found({ deviceId: s.deviceId })
      const now = clock.now()
      const row = await moveDevice(tx, s.deviceId, 'start', {
        events: 2,
        set: {
          generation: s.generation,
          started_at: now,
          last_active_at: now,
          last_error: null,
          restart_at: null,
          resume_on_start: false,
          // Somebody looked after it: the policy may try again as often as ever.
          ...(s.by !== 'platform' && { restart_attempts: 0 }),
        },
      })
      if (row === undefined)
        throw problems.illegal_transition({
          deviceId: s.deviceId,
          deviceStatus: before.status,
          operation: 'start',
          allowed: 'STOPPED or ERROR',
        })
      await tell(outbox, tx, row, [
        statusChanged(before.status, 'RUNNING', now),
        fact(DeviceStarted, { startedAt: now.toISOString() }),
      ])
      afterCommit(tx, () => telemetry.done('start', s.deviceId))
    },

    stop: async (input: LifecycleInput, signal: AbortSignal) => {
      const row = await deviceOf(deps, input.deviceId)
      await providers[row.provider_type].stop(row.id, { signal })
    },

    giveUp: async (tx: Tx<DevicesSchema>, input: LifecycleInput, { error, errorCode }: TurnedBack) => {
      afterCommit(tx, () => telemetry.failed('start', input.deviceId, error))
      const row = await touchDevice(tx, input.deviceId, { events: 0, set: { last_error: error } })
      if (row === undefined || input.by !== 'platform') return
      if (row.status === 'STOPPED') {
        const lost = await moveDevice(tx, row.id, 'lose', { events: 1 })
        if (lost !== undefined) await tell(outbox, tx, lost, [statusChanged('STOPPED', 'ERROR', clock.now())])
      }
      if (PROVIDER_AWAY.has(errorCode)) {
        await scheduleRestart(tx, row.id, { delayMs: PROVIDER_PAUSE_MS, attempts: row.restart_attempts })
        return
      }
      if (row.restart_attempts >= settings.DEVICES_RESTART_ATTEMPTS) return
      const attempts = row.restart_attempts + 1
      const delayMs = restartDelayMs(attempts, settings.DEVICES_RESTART_BACKOFF_MS)
      await scheduleRestart(tx, row.id, { delayMs, attempts })
    },
  }
}
