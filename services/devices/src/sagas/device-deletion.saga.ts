import { DeviceDeleted } from '@cloudphone/contracts/events/device-events'
import { afterCommit, type Tx } from '@cloudphone/db/database'
import { saga } from '@cloudphone/saga/builder'
import { buryDevice, lockDevice, touchDevice } from '../db/device-repo.ts'
import { giveRoomBack } from '../db/node-repo.ts'
import { releasePorts } from '../db/port-repo.ts'
import type { DevicesSchema } from '../db/schema.ts'
import type { Deps } from '../domain/deps.ts'
import { fact, tell } from '../domain/facts.ts'
import type { Quota } from '../domain/quota.ts'
import type { DeviceDeletionInput } from '../domain/saga-inputs.ts'
import { stopFact } from '../domain/stop-fact.ts'
import { deviceOf } from './lifecycle-steps.ts'

const TIMEOUT_MS = 600_000

/** Takes a device and all it holds away. It only goes forward; the row is DELETING from the request on. */
export function deviceDeletion(deps: Deps, quota: Quota) {
  const { outbox, providers, clock, settings, telemetry } = deps
  return saga('device_deletion', 1, { timeoutMs: TIMEOUT_MS })
    .input<DeviceDeletionInput, Tx<DevicesSchema>>()
    .pointOfNoReturn()
    .call(
      'STOP_DEVICE',
      async (s, { signal }) => {
        const row = await deviceOf(deps, s.deviceId)
        await providers[row.provider_type].stop(row.id, { signal })
      },
      {
        record: async (tx, s) => {
          const before = await lockDevice(tx, s.deviceId)
          if (before === undefined || before.started_at === null) return
          const row = await touchDevice(tx, s.deviceId, { events: 1, set: { started_at: null } })
          if (row !== undefined) {
            await tell(outbox, tx, row, [stopFact(before.started_at, clock.now(), 'deletion')])
          }
        },
      },
    )
    .call('DESTROY_PROVIDER_DEVICE', async (s, { signal }) => {
      const row = await deviceOf(deps, s.deviceId)
      await providers[row.provider_type].destroy(row.id, { signal })
    })
    .call('RELEASE_QUOTA', async (s, { signal }) => {
      if (s.userId !== null) await quota.release(s, signal)
    })
    .local('DELETE_DATABASE_RECORD', async (tx, s, { sagaId }) => {
      const seconds = settings.DEVICES_PORT_COOLDOWN_SECONDS
      await releasePorts(tx, s.deviceId, { kind: 'cooldown', seconds, reason: 'device deleted' })
      await giveRoomBack(tx, s.deviceId)
      const row = await buryDevice(tx, s.deviceId, { sagaId, reason: 'deleted', kind: 'deleted' })
      if (row === undefined) return
      const deleted = fact(DeviceDeleted, { reason: 'deleted', deletedAt: clock.now().toISOString() })
      await tell(outbox, tx, { ...row, version: row.version + 1 }, [deleted])
      afterCommit(tx, () => telemetry.done('deletion', s.deviceId))
    })
    .end()
}
