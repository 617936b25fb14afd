import { on } from '@cloudphone/bus/consumer'
import { AllocationActivated, AllocationReleased } from '@cloudphone/contracts/events/allocation-events'
import type { Metering } from '../domain/metering.ts'

type TxOf = Parameters<Metering['begin']>[0]

/** Allocation events: pooled phones are metered while somebody holds them. */
export function allocationEvents(metering: Metering) {
  return [
    on(AllocationActivated, (tx: TxOf, { id, data }) =>
      metering.begin(tx, { ...data, startedAt: new Date(data.activatedAt) }, id),
    ),
    on(AllocationReleased, async (tx: TxOf, { id, data }) => {
      // A grant that failed was never used.
      if (data.activatedAt === null) return
      const end = { at: new Date(data.releasedAt), by: 'allocation.released' as const }
      await metering.end(tx, { ...data, startedAt: new Date(data.activatedAt) }, end, id)
    }),
  ]
}
