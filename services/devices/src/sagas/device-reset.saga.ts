import { DeviceReset, DeviceResetFailed } from '@cloudphone/contracts/events/device-events'
import { afterCommit, type Tx } from '@cloudphone/db/database'
import { saga } from '@cloudphone/saga/builder'
import type { TurnedBack } from '@cloudphone/saga/definition'
import { PermanentError } from '@cloudphone/saga/errors'
import { lockDevice, touchDevice } from '../db/device-repo.ts'
import type { DevicesSchema } from '../db/schema.ts'
import { insertWipe } from '../db/wipe-repo.ts'
import type { AdbKeyApplier } from '../domain/adb-key-applier.ts'
import type { Deps } from '../domain/deps.ts'
import { fact, tell } from '../domain/facts.ts'
import type { DeviceResetInput } from '../domain/saga-inputs.ts'
import { problems } from '../errors.ts'
import type { WipeReport } from '../providers/provider.ts'
import { startSteps } from './device-start.saga.ts'
import { deviceOf, recordStop } from './lifecycle-steps.ts'

const TIMEOUT_MS = 900_000
/** After these nothing is left on the phone, and that is proved. */
const AFTER_WIPE: ReadonlySet<string> = new Set(['ENSURE_PROVIDER_DEVICE', 'START_DEVICE'])

/**
 * Erases all that users left on a phone, keeps the proof, and starts it again if it ran. A wipe that does not succeed, or leaves
 * anything behind, puts a pooled phone into quarantine: nobody gets it until an operator has reset it.
 */
export function deviceReset(deps: Deps, keys: AdbKeyApplier) {
  const { providers, settings, telemetry } = deps
  const start = startSteps(deps, keys)
  return (
    saga('device_reset', 1, { timeoutMs: TIMEOUT_MS })
      .input<DeviceResetInput, Tx<DevicesSchema>>()
      .local('CHECK_DEVICE', async (tx, s) => {
        const row = await lockDevice(tx, s.deviceId)
        if (row === undefined) throw problems.device_not_found({ deviceId: s.deviceId })
        // A failed one that the restart policy was about to start counts as one that ran.
        return { runs: row.status === 'RUNNING' || (row.status === 'ERROR' && row.restart_at !== null) }
      })
      .call(
        'STOP_DEVICE',
        async (s, { signal }) => {
          const row = await deviceOf(deps, s.deviceId)
          await providers[row.provider_type].stop(row.id, { signal })
        },
        { record: async (tx, s) => void (await recordStop(deps, tx, s.deviceId, 'reset')) },
      )
      .call(
        'WIPE_DEVICE',
        async (s, { signal }) => {
          const row = await deviceOf(deps, s.deviceId)
          const wipe = await providers[row.provider_type].wipe(row.id, { signal })
          if (wipe.residue.length === 0) return { wipe }
          throw new PermanentError('wipe_unproved', `${wipe.residue.join(', ')} survived the wipe`)
        },
        { record: async (tx, s, { sagaId }) => await recordWipe(deps, tx, { ...s, sagaId }) },
      )
      // A phone that has disappeared is made again: that, too, is one without anything on it.
      .call('ENSURE_PROVIDER_DEVICE', async (s, { signal }) => {
        if (s.runs) await start.ensure(s, signal)
      })
      .call(
        'START_DEVICE',
        async (s, { signal, attempt }) =>
          s.runs ? await start.start(s, signal, attempt) : { generation: null },
        {
          timeoutMs: (settings.DEVICES_BOOT_WAIT_SECONDS + 30) * 1000,
          record: async (tx, { generation, ...s }) => {
            if (generation !== null) await start.record(tx, { ...s, generation })
            afterCommit(tx, () => telemetry.done('reset', s.deviceId))
          },
        },
      )
      .undo(async (s, { signal }) => {
        if (s.runs) await start.stop(s, signal)
      })
      .onCompensated(async (tx, s, turnedBack) => {
        if (AFTER_WIPE.has(turnedBack.failedStep)) {
          await start.giveUp(tx, { ...s, by: 'platform' }, turnedBack)
        } else await giveUp(deps, tx, s, turnedBack)
      })
      .end()
  )
}

async function recordWipe(
  { outbox, clock }: Deps,
  tx: Tx<DevicesSchema>,
  s: DeviceResetInput & { wipe: WipeReport; sagaId: string },
): Promise<void> {
  const row = await touchDevice(tx, s.deviceId, { events: 1, set: { hygiene: 'clean', last_error: null } })
  if (row === undefined) throw problems.device_not_found({ deviceId: s.deviceId })
  const { method, erased, residue } = s.wipe
  await insertWipe(tx, {
    ...{ saga_id: s.sagaId, device_id: row.id, tenant_id: row.tenant_id, fence: row.fence },
    ...{ reason: s.reason, method, erased, residue: [...residue] },
  })
  const resetAt = clock.now().toISOString()
  await tell(outbox, tx, row, [fact(DeviceReset, { status: row.status, reason: s.reason, resetAt })])
}

async function giveUp(
  { outbox, telemetry }: Deps,
  tx: Tx<DevicesSchema>,
  s: DeviceResetInput,
  { error }: TurnedBack,
): Promise<void> {
  afterCommit(tx, () => telemetry.failed('reset', s.deviceId, error))
  const before = await lockDevice(tx, s.deviceId)
  if (before === undefined) return
  const set = { last_error: error, ...(before.user_id === null && { hygiene: 'quarantined' as const }) }
  const row = await touchDevice(tx, s.deviceId, { events: 1, set })
  if (row !== undefined) {
    await tell(outbox, tx, row, [fact(DeviceResetFailed, { status: row.status, reason: error })])
  }
}
