import { type Caller, may, Permission } from '@cloudphone/contracts/access'

/** An API key as its owner may see it after it was made: without the secret. */
export interface ApiKey {
  readonly id: string
  readonly name: string
  /** Null: what its owner's role may, but for the owner's credentials. */
  readonly scopes: readonly Permission[] | null
  /** The first characters, to recognise it by. */
  readonly prefix: string
  readonly createdAt: Date
  readonly expiresAt: Date | null
  readonly lastUsedAt: Date | null
}

/** Marks a secret as an API key of this platform, so that scanners of leaked secrets can tell. */
export const apiKeyMark = 'cpk_'

/** How much of a key is kept in the clear: the mark and 6 of its 43 random characters. */
export const apiKeyPrefixLength = 10

/**
 * How long a token lasts that a key was exchanged for. The gateway asks again after half of it; the other half is room
 * for clocks that differ.
 */
export const exchangedTokenSeconds = 120

/** What a key without scopes of its own may: all that its owner may, but for the owner's credentials. */
export function scopesByDefault(owner: Caller): Permission[] {
  return Permission.options.filter((one) => one !== 'account:manage' && may(owner, one))
}
