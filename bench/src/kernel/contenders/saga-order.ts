/** A round of sagas or workflows. */
export interface SagaOrder {
  /** `call`: an outside effect, intent before and checkpoint after it. `local`: effects in the checkpoint's transaction. */
  readonly steps: 'call' | 'local'
  /** `alone`: as DBOS starts a workflow. `transaction`: with what its caller commits, which DBOS has no way for. */
  readonly start: 'alone' | 'transaction'
  readonly concurrency: number
  readonly durationMs: number
}

export interface SagaSettings {
  readonly url: string
  readonly poolSize: number
}

export const STEPS = 5

/** What each step gives back: 300 bytes of JSON. */
export function stepResult<Name extends string>(name: Name): Record<Name, string> {
  const bare = JSON.stringify({ [name]: '' }).length
  return { [name]: 'x'.repeat(300 - bare) } as Record<Name, string>
}
