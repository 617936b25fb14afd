import { afterCommit, type Tx } from '@cloudphone/db/database'
import { saga } from '@cloudphone/saga/builder'
import { lockDevice } from '../db/device-repo.ts'
import type { DevicesSchema } from '../db/schema.ts'
import type { Deps } from '../domain/deps.ts'
import type { LifecycleInput } from '../domain/saga-inputs.ts'
import { problems } from '../errors.ts'
import { deviceOf, recordStop, refuseStale } from './lifecycle-steps.ts'

const TIMEOUT_MS = 120_000

/** Stops a device; /data is kept. Once the phone may have been told, it only goes forward: half a stop helps nobody. */
export function deviceStop(deps: Deps) {
  const { providers, telemetry } = deps
  return saga('device_stop', 1, { timeoutMs: TIMEOUT_MS })
    .input<LifecycleInput, Tx<DevicesSchema>>()
    .local('CHECK_HOLDER', async (tx, s) => {
      const row = await lockDevice(tx, s.deviceId)
      if (row === undefined) throw problems.device_not_found({ deviceId: s.deviceId })
      refuseStale(row, s)
    })
    .pointOfNoReturn()
    .call(
      'STOP_DEVICE',
      async (s, { signal }) => {
        const row = await deviceOf(deps, s.deviceId)
        await providers[row.provider_type].stop(row.id, { signal })
      },
      {
        record: async (tx, s) => {
          const reason = s.by === 'operator' ? 'operator' : 'user'
          if (await recordStop(deps, tx, s.deviceId, reason))
            afterCommit(tx, () => telemetry.done('stop', s.deviceId))
        },
      },
    )
    .onCompensated(async (tx, s, { error }) =>
      afterCommit(tx, () => telemetry.failed('stop', s.deviceId, error)),
    )
    .end()
}
