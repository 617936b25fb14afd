/** What may be shown of a key. */
export interface KeyRecord {
  readonly kid: string
  readonly active: boolean
  readonly createdAt: Date
  readonly activatesAt: Date | null
  readonly goneAt: Date | null
}
