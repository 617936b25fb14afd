/* Terminology:
 * - visit: somebody's use of a running phone that lasts longer than a question: a shell, a log that is followed, a tunnel
 * - right: what let the visitor in: his session, and that the phone is his, or held by him under this fence
 */
import { type Caller, may } from '@cloudphone/contracts/access'
import type { DeviceId } from '@cloudphone/contracts/id'
import { common } from '@cloudphone/runtime/problem'
import type { RevocationWatch } from '@cloudphone/runtime/revocations'
import { findDevice, findDevices } from '../db/device-repo.ts'
import type { DeviceRow } from '../db/schema.ts'
import { problems } from '../errors.ts'
import type { Deps } from './deps.ts'
import { accessOf } from './device.ts'
import { visibleDevice } from './lifecycle-service.ts'

/** Lost rights are known after one look and its answer: well within the two seconds that are promised. */
const LOOK_MS = 500
/** Without an answer from the database for so long nobody can say who may stay. */
const BLIND_MS = 5_000

/** A visit that goes on. */
export interface Visit {
  readonly device: DeviceRow
  /** Fires when the visitor must leave; its reason is what to tell him. */
  readonly signal: AbortSignal
  /** Looks at once: why the visitor must leave, or undefined. Says it better than a phone that has hung up. */
  lostRight(): Promise<Error | undefined>
  /** The visitor has left. */
  end(): void
}

interface Guest {
  readonly caller: Caller
  readonly device: DeviceRow
  readonly leave: AbortController
}

/**
 * Lets visitors in and sees that they leave when their right ends: their session revoked or their role changed, the phone
 * given to somebody else, stopped or deleted. One query for all of them, twice a second, only while there are any.
 */
export class Visits {
  readonly #deps: Deps
  readonly #revocations: Pick<RevocationWatch, 'isRevoked' | 'onChange'>
  readonly #guests = new Set<Guest>()
  readonly #deaf: () => void
  #looking: NodeJS.Timeout | undefined
  #isLooking = false
  #lookedAtMs = 0

  constructor(deps: Deps, revocations: Pick<RevocationWatch, 'isRevoked' | 'onChange'>) {
    this.#deps = deps
    this.#revocations = revocations
    this.#deaf = revocations.onChange(({ missed }) => {
      for (const guest of this.#guests) {
        if (missed || revocations.isRevoked(guest.caller)) guest.leave.abort(common.token_revoked())
      }
    })
  }

  /** @throws `device_not_found` and the other refusals, `device_not_running`. */
  async begin(asked: { caller: Caller; deviceId: DeviceId; signal: AbortSignal }): Promise<Visit> {
    const { caller, deviceId } = asked
    const device = await visibleDevice(this.#deps, caller, deviceId)
    if (device.status !== 'RUNNING') {
      throw problems.device_not_running({ deviceId, deviceStatus: device.status })
    }
    // A session that ended while we looked is told to who listens from now on only.
    if (this.#revocations.isRevoked(caller)) throw common.token_revoked()
    const guest: Guest = { caller, device, leave: new AbortController() }
    this.#guests.add(guest)
    this.#watch()
    return {
      device,
      signal: AbortSignal.any([guest.leave.signal, asked.signal]),
      lostRight: async () => lostRight(guest, await findDevice(this.#deps.database.kysely, deviceId)),
      end: () => this.#forget(guest),
    }
  }

  /** All must leave: the service stops. */
  async close(): Promise<void> {
    this.#deaf()
    for (const guest of this.#guests) guest.leave.abort(common.service_unavailable({ service: 'devices' }))
    this.#guests.clear()
    clearInterval(this.#looking)
  }

  #watch(): void {
    if (this.#guests.size > 1) return
    this.#lookedAtMs = this.#deps.clock.monotonicMs()
    this.#looking = setInterval(() => void this.#look(), LOOK_MS).unref()
  }

  #forget(guest: Guest): void {
    this.#guests.delete(guest)
    if (this.#guests.size === 0) clearInterval(this.#looking)
  }

  async #look(): Promise<void> {
    const { database, clock, telemetry } = this.#deps
    if (clock.monotonicMs() - this.#lookedAtMs > BLIND_MS) {
      for (const guest of this.#guests) guest.leave.abort(common.service_unavailable({ service: 'devices' }))
    }
    if (this.#isLooking) return
    this.#isLooking = true
    try {
      const guests = [...this.#guests]
      const rows = await findDevices(database.kysely, [...new Set(guests.map(({ device }) => device.id))])
      const byId = new Map(rows.map((row) => [row.id, row]))
      this.#lookedAtMs = clock.monotonicMs()
      for (const guest of guests) {
        const why = lostRight(guest, byId.get(guest.device.id))
        if (why !== undefined) guest.leave.abort(why)
      }
    } catch (error) {
      telemetry.visitsUnseen(error)
    } finally {
      this.#isLooking = false
    }
  }
}

/** Why a visitor must leave; undefined while he may stay. */
function lostRight({ caller, device }: Guest, now: DeviceRow | undefined): Error | undefined {
  const { id: deviceId } = device
  if (now === undefined) return problems.device_not_found({ deviceId })
  if (now.status !== 'RUNNING') return problems.device_not_running({ deviceId, deviceStatus: now.status })
  const any = may(caller, 'devices:any')
  const access = accessOf(now, { userId: caller.userId, tenantId: caller.tenantId, any })
  // Whoever holds it again holds it anew: what he left open has ended with his first hold.
  const isStale = !any && now.user_id === null && now.fence !== device.fence
  return access === 'granted' && !isStale ? undefined : problems.visit_over({ deviceId })
}
