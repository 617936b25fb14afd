/* A device's list of adb keys is wanted (the row) and applied (the phone). Each change of holder or keys counts `keys_wanted`
 * up in its own transaction; whoever comes first then claims the device, gives the phone the list as it is then, and notes
 * the number. A claim keeps two lists from arriving in the wrong order; a lost claim makes the list wanted anew; what a
 * crash leaves undone the repair loop does. */
import { type AdbKeyPair, generateAdbKey } from '@cloudphone/adb-client/adb-key'
import type { DeviceId } from '@cloudphone/contracts/id'
import {
  claimKeys,
  endKeysClaim,
  findPlatformKey,
  keepPlatformKey,
  keysBehind,
  listKeysBehind,
  publicKeysOf,
} from '../db/adb-key-repo.ts'
import type { DeviceRow } from '../db/schema.ts'
import { ProviderError } from '../providers/provider.ts'
import type { Deps } from './deps.ts'

/** Longer than a provider call may take, so that a claim outlives the call that it guards. */
const CLAIM_SECONDS = 10
const PATIENCE_MS = 6_000
const LOOK_AGAIN_MS = 50
const REPAIRS_PER_TURN = 50

export class AdbKeyApplier {
  readonly #deps: Deps

  constructor(deps: Deps) {
    this.#deps = deps
  }

  /** The platform's own key pair, made at first use by whichever instance is first. */
  async platformKey(): Promise<AdbKeyPair> {
    const { kysely } = this.#deps.database
    let kept = await findPlatformKey(kysely)
    if (kept === undefined) {
      const fresh = await generateAdbKey('cloudphone@platform')
      kept = await keepPlatformKey(kysely, { private_key: fresh.privateKey, public_key: fresh.publicKey })
    }
    return { privateKey: kept.private_key, publicKey: kept.public_key }
  }

  /** The lines that a device's phone should accept now. */
  async keysFor(device: DeviceRow): Promise<string[]> {
    const own = await publicKeysOf(this.#deps.database.kysely, device.user_id ?? device.holder_user_id)
    return [(await this.platformKey()).publicKey, ...own]
  }

  /** Gives the phone its list unless it has it or another is at it. True when the phone has it now. */
  async apply(deviceId: DeviceId): Promise<boolean> {
    const { kysely } = this.#deps.database
    const claim = await claimKeys(kysely, deviceId, CLAIM_SECONDS)
    if (claim === undefined) return !(await keysBehind(kysely, deviceId))
    let applied: number | undefined
    try {
      const keys = await this.keysFor(claim.device)
      await this.#deps.providers[claim.device.provider_type].setAdbKeys(deviceId, keys)
      applied = claim.device.keys_wanted
    } catch (error) {
      // A phone that is not there accepts no key at all, and gets the list of the day when it is made again.
      if (error instanceof ProviderError && error.code === 'phone_not_found')
        applied = claim.device.keys_wanted
      else this.#deps.telemetry.keysFailed(deviceId, error)
    }
    await endKeysClaim(kysely, claim, applied)
    return applied !== undefined && !(await keysBehind(kysely, deviceId))
  }

  /** Resolves true when the phone has its list, false when that took too long: the repair loop goes on then. */
  async ensure(deviceId: DeviceId): Promise<boolean> {
    const { clock } = this.#deps
    const untilMs = clock.monotonicMs() + PATIENCE_MS
    while (!(await this.apply(deviceId))) {
      if (clock.monotonicMs() >= untilMs) return false
      await clock.sleep(LOOK_AGAIN_MS)
    }
    return true
  }

  /** One turn of the repair loop. */
  async repair(): Promise<void> {
    const behind = await listKeysBehind(this.#deps.database.kysely, REPAIRS_PER_TURN)
    for (const deviceId of behind) await this.apply(deviceId)
  }
}
