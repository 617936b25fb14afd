import type { DeviceId } from '@cloudphone/contracts/id'
import { type Provider, ProviderError, type Resource } from './provider.ts'

/** Starts a phone and waits for Android. @throws ProviderError `boot_timeout` when it takes longer than `waitSeconds`. */
export async function bootPhone(
  provider: Provider,
  deviceId: DeviceId,
  { waitSeconds, signal }: { waitSeconds: number; signal: AbortSignal },
): Promise<Resource> {
  const patience = AbortSignal.timeout(waitSeconds * 1000)
  try {
    return await provider.start(deviceId, { signal: AbortSignal.any([signal, patience]) })
  } catch (error) {
    if (!patience.aborted || signal.aborted) throw error
    const message = `Android did not boot within ${waitSeconds} s`
    throw new ProviderError({ code: 'boot_timeout', message, retryable: true }, error)
  }
}
