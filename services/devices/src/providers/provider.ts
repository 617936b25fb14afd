/* Terminology:
 * - provider: what makes and runs phones: a phone host, a Docker host, a cloud vendor
 * - resource: what the provider keeps for one device, found again by the device's id
 */
import type { ProviderType } from '@cloudphone/contracts/device'
import type { DeviceId } from '@cloudphone/contracts/id'

/** What went wrong at a provider. `retryable: false` only when the same request can never succeed. */
export class ProviderError extends Error {
  override readonly name = 'ProviderError'
  readonly code: string
  readonly retryable: boolean

  constructor(options: { code: string; message: string; retryable: boolean }, cause?: unknown) {
    super(options.message, cause === undefined ? undefined : { cause })
    this.code = options.code
    this.retryable = options.retryable
  }
}

/** What a phone should be. */
export interface PhoneSpec {
  readonly deviceId: DeviceId
  /** Unique at the provider. */
  readonly name: string
  /** Marks the resource as ours: `cloudphone.device`, `cloudphone.node` and more. */
  readonly labels: Readonly<Record<string, string>>
  /** Pixels. */
  readonly width: number
  readonly height: number
  readonly dpi: number
  readonly androidVersion: string
  readonly tablet: boolean
  readonly cpuCores: number
  readonly memoryMb: number
  readonly storageMb: number
  readonly adbPort: number
  readonly adbKeys: readonly string[]
  readonly specific: Readonly<Record<string, unknown>>
}

/** `booting` and `running` are alive. */
export type ResourceState = 'created' | 'booting' | 'running' | 'stopped' | 'crashed'

/** What the provider knows of one phone. */
export interface Resource {
  readonly deviceId: DeviceId
  /** The provider's own id. */
  readonly externalId: string
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly state: ResourceState
  /** How often it was started. */
  readonly generation: number
  readonly adb: { readonly host: string; readonly port: number } | null
  readonly exitReason: ExitReason | null
  /** The provider's own words for it. */
  readonly exitText: string | null
  /** When it ended, as far as the provider saw it end; null when it only found it dead. */
  readonly exitedAt: Date | null
}

/** `requested`: by us. `power_off`: from inside the phone. `host_lost`: found dead after its host had died. */
export type ExitReason = 'requested' | 'power_off' | 'host_shutdown' | 'host_lost' | 'crash'

export interface Capabilities {
  /** Needs adb ports of the node. */
  readonly ports: boolean
  readonly adb: boolean
  readonly screenshot: boolean
  readonly appInstall: boolean
}

/** What a wipe did, and what is still there: a proved wipe has no residue. */
export interface WipeReport {
  /** How it was done, such as `data_erased`; `absent` when there was no phone. */
  readonly method: string
  /** Entries erased, as the provider counts them. */
  readonly erased: number
  readonly residue: readonly string[]
}

export interface CallOptions {
  readonly signal?: AbortSignal
}

/**
 * The port behind which phones are made. Every method is idempotent by device id and rejects with `ProviderError`;
 * the suite in provider.contract.ts says the rest.
 */
export interface Provider {
  readonly type: ProviderType
  readonly capabilities: Capabilities
  /** Makes a phone, or finds the one made for this device before. Does not start it. */
  create(spec: PhoneSpec, options?: CallOptions): Promise<Resource>
  /** Starts it and resolves when Android has booted. `port_in_use` when a stranger has its adb port. */
  start(deviceId: DeviceId, options?: CallOptions): Promise<Resource>
  /** Ensure stopped: a stopped or absent phone is fine. */
  stop(deviceId: DeviceId, options?: CallOptions): Promise<void>
  /** Switches off and erases all that users left; keys and what the phone is stay. A phone that is absent has nothing on it. */
  wipe(deviceId: DeviceId, options?: CallOptions): Promise<WipeReport>
  /** Ensure absent, a creation under way included. */
  destroy(deviceId: DeviceId, options?: CallOptions): Promise<void>
  /** Undefined when there is none. */
  probe(deviceId: DeviceId, options?: CallOptions): Promise<Resource | undefined>
  /** Resources that have all these labels. */
  list(labels: Readonly<Record<string, string>>, options?: CallOptions): Promise<readonly Resource[]>
  /** Replaces the accepted adb keys; when it resolves connections of other keys are cut. */
  setAdbKeys(deviceId: DeviceId, keys: readonly string[], options?: CallOptions): Promise<void>
  /**
   * Yields whenever something may have changed, and once at each (re)connection: a hint to look, never the truth. Ends when
   * the provider goes away (call again) and rejects only with the signal's reason.
   */
  watch(signal: AbortSignal): AsyncIterable<void>
  close(): Promise<void>
}

/** Docker-like providers begin the reason of a failed creation like the Docker Engine's own client would. */
export function createFailed(error: unknown): ProviderError {
  const message = error instanceof Error ? error.message : String(error)
  const facts: { code?: unknown; retryable?: unknown } =
    typeof error === 'object' && error !== null ? error : {}
  return new ProviderError(
    {
      code: typeof facts.code === 'string' ? facts.code : 'create_failed',
      message: `Docker create failed: ${message}`,
      retryable: facts.retryable !== false,
    },
    error,
  )
}
