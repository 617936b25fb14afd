import { AdbError } from '@cloudphone/adb-client/adb-client'
import type { Deps } from './deps.ts'
import { phoneProblem } from './phone-door.ts'
import { type OnPhone, recordUse } from './phone-operations.ts'
import type { Visit, Visits } from './visits.ts'

/** Lets somebody's own adb through to the phone he uses. */
export class TunnelService {
  readonly #deps: Deps
  readonly #visits: Visits

  constructor(deps: Deps, visits: Visits) {
    this.#deps = deps
    this.#visits = visits
  }

  /** Begins the visit, on record. @throws `device_not_found` and the other refusals, `device_not_running`. */
  async begin(asked: OnPhone): Promise<Visit> {
    const visit = await this.#visits.begin(asked)
    try {
      await recordUse(this.#deps, visit.device, { verb: 'device.adb_tunnel', after: {} })
      return visit
    } catch (error) {
      visit.end()
      throw error
    }
  }

  /** What to tell who found nobody at the adb port. */
  async unreachable(deviceId: OnPhone['deviceId'], cause: unknown): Promise<Error> {
    const reason = cause instanceof Error ? cause.message : String(cause)
    return await phoneProblem(this.#deps, deviceId, new AdbError('unreachable', reason))
  }
}
