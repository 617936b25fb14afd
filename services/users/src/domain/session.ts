/** A session that can still be used. */
export interface SessionRecord {
  readonly id: string
  readonly createdAt: Date
  readonly lastUsedAt: Date
  readonly expiresAt: Date
}
