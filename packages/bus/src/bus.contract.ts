import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { beforeEach, describe } from 'vitest'
import type { Bus } from './bus.ts'
import { batches } from './contract/batches.ts'
import { failures, letters } from './contract/failures.ts'
import { kills } from './contract/kills.ts'
import { closing, order } from './contract/order.ts'
import { routing } from './contract/routing.ts'
import { type BusHarness, retryDelaysMs, type Undo } from './contract/support.ts'
import type { OpenDrillBus } from './drill/room.ts'

/** Registers what every adapter of the bus must do. */
export function busContract(name: string, makeHarness: () => Promise<BusHarness>): void {
  describe(name, () => {
    const undo: Undo = []
    let harness: BusHarness
    beforeEach(async () => {
      harness = await makeHarness()
      return async () => {
        for (const step of undo.splice(0).reverse()) await step()
        await harness.close()
      }
    })
    const open = async (): Promise<Bus> => {
      const { openDrillBus }: { openDrillBus: OpenDrillBus } = await import(harness.adapter.href)
      const bus = await openDrillBus({
        settings: harness.settings,
        log: silentLog(),
        metrics: openMetrics('test'),
        crash: crashPoints(''),
        retryDelaysMs,
      })
      undo.push(() => bus.close())
      return bus
    }
    routing(open)
    order(open)
    batches(open)
    failures(open)
    letters(open)
    closing(open)
    kills(() => harness, undo)
  })
}
