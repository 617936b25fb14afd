import { type Caller, may, type Permission } from '@cloudphone/contracts/access'
import type { Ids } from '@cloudphone/contracts/id'
import type { Database } from '@cloudphone/db/database'
import type { Audit } from '@cloudphone/runtime/audit-log'
import { findAccount } from '../db/account-repo.ts'
import {
  deleteApiKey,
  findKeyOwner,
  insertApiKey,
  listApiKeys,
  succeedApiKey,
  touchApiKey,
} from '../db/api-key-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import { problems } from '../errors.ts'
import { hashOfSecret, type Secrets } from '../secrets.ts'
import type { UsersTelemetry } from '../telemetry.ts'
import type { TokenSigner } from './access-token.ts'
import { callerOf } from './account.ts'
import {
  type ApiKey,
  apiKeyMark,
  apiKeyPrefixLength,
  exchangedTokenSeconds,
  scopesByDefault,
} from './api-key.ts'
import type { Revocations } from './revocations.ts'

/** API keys: secrets for programs, each of one user and with that user's role. */
export class ApiKeyService {
  readonly #database: Database<UsersSchema>
  readonly #audit: Audit
  readonly #revocations: Revocations
  readonly #signer: TokenSigner
  readonly #secrets: Secrets
  readonly #ids: Ids
  readonly #telemetry: UsersTelemetry

  constructor(deps: {
    database: Database<UsersSchema>
    audit: Audit
    revocations: Revocations
    signer: TokenSigner
    secrets: Secrets
    ids: Ids
    telemetry: UsersTelemetry
  }) {
    this.#database = deps.database
    this.#audit = deps.audit
    this.#revocations = deps.revocations
    this.#signer = deps.signer
    this.#secrets = deps.secrets
    this.#ids = deps.ids
    this.#telemetry = deps.telemetry
  }

  /**
   * Makes a key for the caller. The secret is in this answer and nowhere else.
   * @throws ProblemError `scope_not_held` for a scope that the caller has not.
   */
  async create(
    caller: Caller,
    wanted: {
      name: string
      expiresInDays?: number | undefined
      scopes?: readonly Permission[] | undefined
    },
  ): Promise<ApiKey & { readonly key: string }> {
    const missing = wanted.scopes?.find((scope) => !may(caller, scope))
    if (missing !== undefined) throw problems.scope_not_held({ scope: missing })
    // A key that was made by a narrowed key is no wider than that one.
    const scopes = wanted.scopes ?? caller.scopes
    const key = `${apiKeyMark}${this.#secrets.next()}`
    const made = await this.#database.transaction(async (tx) => {
      const row = await insertApiKey(tx, {
        id: this.#ids.next<'api_key'>(),
        userId: caller.userId,
        name: wanted.name,
        prefix: key.slice(0, apiKeyPrefixLength),
        keyHash: hashOfSecret(key),
        expiresInDays: wanted.expiresInDays,
        scopes,
      })
      const { tenantId } = caller
      await this.#audit.add(tx, { verb: 'api_key.create', target: row.id, tenantId, after: row })
      return row
    })
    this.#telemetry.apiKeyMade({ userId: caller.userId, apiKeyId: made.id })
    return { ...made, key }
  }

  /** The caller's own keys, the newest first; one more than `limit` when there are more. */
  list(caller: Caller, page: { beforeId: string | undefined; limit: number }): Promise<ApiKey[]> {
    return listApiKeys(this.#database.kysely, { userId: caller.userId, ...page })
  }

  /**
   * Makes the successor of a key; the old one works for `overlapSeconds` more, so that a program can change over.
   * @throws ProblemError `api_key_not_found`, also for other people's.
   */
  async rotate(
    caller: Caller,
    apiKeyId: string,
    overlapSeconds: number,
  ): Promise<ApiKey & { readonly key: string }> {
    const key = `${apiKeyMark}${this.#secrets.next()}`
    const made = await this.#database.transaction(async (tx) => {
      const next = await succeedApiKey(tx, {
        ...{ id: this.#ids.next<'api_key'>(), oldId: apiKeyId, userId: caller.userId, overlapSeconds },
        ...{ prefix: key.slice(0, apiKeyPrefixLength), keyHash: hashOfSecret(key) },
      })
      if (next === undefined) throw problems.api_key_not_found({ apiKeyId })
      if (overlapSeconds === 0) await this.#revocations.revokeSession(tx, apiKeyId)
      await this.#audit.add(tx, {
        ...{ verb: 'api_key.rotate', target: apiKeyId, tenantId: caller.tenantId },
        ...{ before: { id: apiKeyId }, after: { ...next, overlapSeconds } },
      })
      return next
    })
    this.#telemetry.apiKeyMade({ userId: caller.userId, apiKeyId: made.id })
    return { ...made, key }
  }

  /** Revokes one of the caller's keys. @throws ProblemError `api_key_not_found`, also for other people's. */
  async delete(caller: Caller, apiKeyId: string): Promise<void> {
    await this.#database.transaction(async (tx) => {
      const before = await deleteApiKey(tx, { id: apiKeyId, userId: caller.userId })
      if (before === undefined) throw problems.api_key_not_found({ apiKeyId })
      await this.#revocations.revokeSession(tx, apiKeyId)
      const { tenantId } = caller
      await this.#audit.add(tx, { verb: 'api_key.delete', target: apiKeyId, tenantId, before })
    })
    this.#telemetry.apiKeyRevoked({ userId: caller.userId, apiKeyId })
  }

  /**
   * Turns a key into a short access token of its owner, which ends with the key at the latest.
   * @throws ProblemError `invalid_api_key` for an unknown, expired or revoked one, and for one of a suspended user.
   */
  async exchange(key: string): Promise<{ accessToken: string; expiresIn: number }> {
    const db = this.#database.kysely
    const found = key.startsWith(apiKeyMark) ? await findKeyOwner(db, hashOfSecret(key)) : undefined
    const account = found && (await findAccount(db, found.userId))
    if (account === undefined || found === undefined) throw problems.invalid_api_key()
    await touchApiKey(db, found.apiKeyId)
    const owner = callerOf(account, found.apiKeyId)
    const expiresIn = Math.max(1, Math.min(exchangedTokenSeconds, found.leftSeconds ?? exchangedTokenSeconds))
    const scopes = found.scopes ?? scopesByDefault(owner)
    return { accessToken: await this.#signer.sign({ ...owner, scopes }, expiresIn), expiresIn }
  }
}
