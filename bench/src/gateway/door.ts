/** What every door in front of the upstream is told. */
export interface DoorSettings {
  /** The small upstream. */
  readonly upstream: string
  /** Where uploads end. */
  readonly sink: string
  /** A users service: it publishes the key of the tokens. */
  readonly users: string
  readonly collector: string
  readonly serviceSecret: string
}

/** Opens a door on a free port of 127.0.0.1; answers its URL. */
export type OpenDoor = (settings: DoorSettings) => Promise<string>
