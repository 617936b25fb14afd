import type { Caller } from '@cloudphone/contracts/access'
import { afterCommit } from '@cloudphone/db/database'
import { dropAdbKey, keepAdbKey, listAdbKeys, lockAdbKeys, wantKeysAnew } from '../db/adb-key-repo.ts'
import type { AdbKeyRow } from '../db/schema.ts'
import { problems } from '../errors.ts'
import { parseAdbKeyLine } from './adb-key.ts'
import type { Deps } from './deps.ts'

/** The phone host takes 64 keys; one is the platform's. */
const MAX_KEYS = 32

/** Users' adb keys. Every change reaches the phones that the user owns or holds, by the repair loop at the latest. */
export class AdbKeyService {
  readonly #deps: Deps
  readonly #keysChanged: () => void

  constructor(deps: Deps, keysChanged: () => void) {
    this.#deps = deps
    this.#keysChanged = keysChanged
  }

  /** Registers a key; one that the user has already is answered as it is. */
  async add(caller: Caller, line: string, label: string | undefined): Promise<AdbKeyRow> {
    const parsed = parseAdbKeyLine(line)
    if ('wrong' in parsed) throw problems.invalid_adb_key({ reason: parsed.wrong })
    return await this.#deps.database.transaction(async (tx) => {
      const count = await lockAdbKeys(tx, caller.userId)
      const { row, added } = await keepAdbKey(tx, {
        id: this.#deps.ids.next(),
        user_id: caller.userId,
        public_key: parsed.publicKey,
        label: label ?? parsed.comment,
        fingerprint: parsed.fingerprint,
      })
      if (!added) {
        this.#deps.audit.nothingChanged()
        return row
      }
      if (count >= MAX_KEYS) throw problems.too_many_adb_keys({ limit: MAX_KEYS })
      await wantKeysAnew(tx, caller.userId)
      const { id: target, label: name, fingerprint } = row
      const after = { label: name, fingerprint }
      await this.#deps.audit.add(tx, { verb: 'adb_key.add', target, tenantId: caller.tenantId, after })
      afterCommit(tx, this.#keysChanged)
      return row
    })
  }

  async remove(caller: Caller, adbKeyId: string): Promise<void> {
    await this.#deps.database.transaction(async (tx) => {
      const before = await dropAdbKey(tx, caller.userId, adbKeyId)
      if (before === undefined) throw problems.adb_key_not_found({ adbKeyId })
      await wantKeysAnew(tx, caller.userId)
      const { tenantId } = caller
      await this.#deps.audit.add(tx, { verb: 'adb_key.delete', target: adbKeyId, tenantId, before })
      afterCommit(tx, this.#keysChanged)
    })
  }

  async list(
    caller: Caller,
    page: { beforeOrdinal: number | undefined; limit: number },
  ): Promise<AdbKeyRow[]> {
    return await listAdbKeys(this.#deps.database.kysely, caller.userId, page)
  }
}
