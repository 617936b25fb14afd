import type { Caller } from '@cloudphone/contracts/access'
import type { Ids } from '@cloudphone/contracts/id'
import type { Database } from '@cloudphone/db/database'
import { deleteApiKey, findKeyOwner, insertApiKey, listApiKeys, touchApiKey } from '../db/api-key-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import { problems } from '../errors.ts'
import { hashOfSecret, type Secrets } from '../secrets.ts'
import type { UsersTelemetry } from '../telemetry.ts'
import type { TokenSigner } from './access-token.ts'
import { type ApiKey, apiKeyMark, apiKeyPrefixLength, exchangedTokenSeconds } from './api-key.ts'

/** API keys: secrets for programs, each of one user and with that user's role. */
export class ApiKeyService {
  readonly #database: Database<UsersSchema>
  readonly #signer: TokenSigner
  readonly #secrets: Secrets
  readonly #ids: Ids
  readonly #telemetry: UsersTelemetry

  constructor(deps: {
    database: Database<UsersSchema>
    signer: TokenSigner
    secrets: Secrets
    ids: Ids
    telemetry: UsersTelemetry
  }) {
    this.#database = deps.database
    this.#signer = deps.signer
    this.#secrets = deps.secrets
    this.#ids = deps.ids
    this.#telemetry = deps.telemetry
  }

  /** Makes a key for the caller. The secret is in this answer and nowhere else. */
  async create(
    caller: Caller,
    wanted: { name: string; expiresInDays?: number | undefined },
  ): Promise<ApiKey & { readonly key: string }> {
    const key = `${apiKeyMark}${this.#secrets.next()}`
    const made = await insertApiKey(this.#database.kysely, {
      id: this.#ids.next<'api_key'>(),
      userId: caller.userId,
      name: wanted.name,
      prefix: key.slice(0, apiKeyPrefixLength),
      keyHash: hashOfSecret(key),
      expiresInDays: wanted.expiresInDays,
    })
    this.#telemetry.apiKeyMade({ userId: caller.userId, apiKeyId: made.id })
    return { ...made, key }
  }

  /** The caller's own keys, the newest first; one more than `limit` when there are more. */
  list(caller: Caller, page: { beforeId: string | undefined; limit: number }): Promise<ApiKey[]> {
    return listApiKeys(this.#database.kysely, { userId: caller.userId, ...page })
  }

  /** Revokes one of the caller's keys. @throws ProblemError `api_key_not_found`, also for other people's. */
  async delete(caller: Caller, apiKeyId: string): Promise<void> {
    const deleted = await deleteApiKey(this.#database.kysely, { id: apiKeyId, userId: caller.userId })
    if (!deleted) throw problems.api_key_not_found({ apiKeyId })
    this.#telemetry.apiKeyRevoked({ userId: caller.userId, apiKeyId })
  }

  /**
   * Turns a key into a short access token of its owner.
   * @throws ProblemError `invalid_api_key` for an unknown, expired or revoked one, and for one of a suspended user.
   */
  async exchange(key: string): Promise<{ accessToken: string; expiresIn: number }> {
    const owner = key.startsWith(apiKeyMark)
      ? await findKeyOwner(this.#database.kysely, hashOfSecret(key))
      : undefined
    if (owner === undefined) throw problems.invalid_api_key()
    await touchApiKey(this.#database.kysely, owner.apiKeyId)
    const { userId, tenantId, role, apiKeyId } = owner
    const accessToken = await this.#signer.sign(
      { userId, tenantId, role, sessionId: apiKeyId },
      exchangedTokenSeconds,
    )
    return { accessToken, expiresIn: exchangedTokenSeconds }
  }
}
