/* Terminology:
 * - next: published, so that everybody can verify by it, and not used yet
 * - active: signs; one at a time
 * - retired: signs no more; published until the last token that it signed has expired
 */
import type { Database } from '@cloudphone/db/database'
import type { Audit } from '@cloudphone/runtime/audit-log'
import type { UsersSchema } from '../db/schema.ts'
import {
  dropAllKeys,
  dropGoneKeys,
  insertActiveKey,
  insertNextKey,
  isRotationDue,
  listKeys,
  promoteNextKey,
} from '../db/signing-key-repo.ts'
import { problems } from '../errors.ts'
import type { UsersTelemetry } from '../telemetry.ts'
import type { KeyRecord } from './key-record.ts'
import type { Revocations } from './revocations.ts'
import { makeKey } from './signing-key.ts'

/** How long a key is published before it signs: services hear of it within 2 s. */
const leadSeconds = 10

/** Changes the key that access tokens are signed with, without anybody noticing, or at once. */
export class SigningKeyService {
  readonly #database: Database<UsersSchema>
  readonly #audit: Audit
  readonly #revocations: Revocations
  readonly #telemetry: UsersTelemetry
  readonly #keepSeconds: number
  readonly #maxAgeDays: number

  constructor(deps: {
    database: Database<UsersSchema>
    audit: Audit
    revocations: Revocations
    telemetry: UsersTelemetry
    /** As long as the longest-lived token lives, and a little more for clocks that differ. */
    keepSeconds: number
    /** 0: keys are only changed by hand. */
    maxAgeDays: number
  }) {
    this.#database = deps.database
    this.#audit = deps.audit
    this.#revocations = deps.revocations
    this.#telemetry = deps.telemetry
    this.#keepSeconds = deps.keepSeconds
    this.#maxAgeDays = deps.maxAgeDays
  }

  /** All keys that are published, the newest first. */
  list(): Promise<KeyRecord[]> {
    return listKeys(this.#database.kysely)
  }

  /**
   * Publishes a new key, which becomes the active one in 10 s. @throws ProblemError `rotation_under_way` while another
   * waits for that.
   */
  async rotate(): Promise<KeyRecord> {
    const key = await makeKey()
    await this.#database.transaction(async (tx) => {
      if (!(await insertNextKey(tx, key, leadSeconds))) throw problems.rotation_under_way()
      await this.#revocations.keysChanged(tx)
      const after = { kid: key.kid, state: 'next' }
      await this.#audit.add(tx, { verb: 'signing_key.rotate', target: key.kid, tenantId: null, after })
    })
    this.#telemetry.signingKeyMade({ kid: key.kid })
    return this.#record(key.kid)
  }

  /** Somebody else may hold the key: a new one takes over at once, and no token of an earlier one is good any more. */
  async replaceCompromised(): Promise<KeyRecord> {
    const key = await makeKey()
    await this.#database.transaction(async (tx) => {
      await dropAllKeys(tx)
      await insertActiveKey(tx, key)
      await this.#revocations.keysChanged(tx)
      await this.#audit.add(tx, {
        ...{ verb: 'signing_key.rotate', target: key.kid, tenantId: null, reason: 'compromised' },
        after: { kid: key.kid, state: 'active' },
      })
    })
    this.#telemetry.signingKeysRevoked({ kid: key.kid })
    return this.#record(key.kid)
  }

  /** A turn of the housekeeping: begins a rotation that is due, ends one that is under way, forgets keys. */
  async tend(): Promise<void> {
    if (this.#maxAgeDays > 0 && (await isRotationDue(this.#database.kysely, this.#maxAgeDays))) {
      await this.rotate()
    }
    await this.#database.transaction(async (tx) => {
      const promoted = await promoteNextKey(tx, this.#keepSeconds)
      const dropped = await dropGoneKeys(tx)
      if (promoted || dropped) await this.#revocations.keysChanged(tx)
    })
  }

  async #record(kid: string): Promise<KeyRecord> {
    const record = (await this.list()).find((one) => one.kid === kid)
    if (record === undefined) throw new Error(`the signing key ${kid} is gone right after it was made`)
    return record
  }
}
