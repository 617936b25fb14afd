import type { Sagas } from '@cloudphone/saga/engine'
import { OperationInProgress } from '@cloudphone/saga/errors'
import { listSoiled, lockSoiled } from '../db/wipe-repo.ts'
import type { Deps } from './deps.ts'
import type { LifecycleDefinitions } from './lifecycle-service.ts'

const PER_TURN = 200

/**
 * Begins the wipe of every pooled phone that a holder has left: once for each fence under which it was left. Until it is proved
 * the phone is nobody's; the table itself refuses a holder.
 */
export async function wipeSoiled(
  { database }: Pick<Deps, 'database'>,
  parts: {
    readonly sagas: Pick<Sagas, 'start'>
    readonly definitions: Pick<LifecycleDefinitions, 'device_reset'>
  },
): Promise<void> {
  for (const deviceId of await listSoiled(database.kysely, PER_TURN)) {
    try {
      await database.transaction(async (tx) => {
        const device = await lockSoiled(tx, deviceId)
        if (device === undefined) return
        const { fence, tenant_id: tenantId } = device
        await parts.sagas.start(tx, {
          definition: parts.definitions.device_reset,
          businessKey: `handover:${deviceId}:${fence}`,
          subject: deviceId,
          tenantId,
          input: { deviceId, by: 'platform', allocationId: null, fence, reason: 'handover' },
        })
      })
    } catch (error) {
      // Whatever its holder has asked for last comes to its end first.
      if (!(error instanceof OperationInProgress)) throw error
    }
  }
}
