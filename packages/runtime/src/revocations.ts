import type { Caller } from '@cloudphone/contracts/access'

/** What one instance knows to be revoked. */
export interface RevocationWatch {
  /** Resolves when all that was revoked before the start is known. @throws ProblemError `service_unavailable`. */
  known(): Promise<void>
  isRevoked(caller: Pick<Caller, 'userId' | 'sessionId' | 'epoch'>): boolean
  /** Called after each change; returns what stops it. */
  onChange(listener: (change: RevocationChange) => void): () => void
  close(): Promise<void>
}

export interface RevocationChange {
  /** The signing keys are others now. */
  readonly keys: boolean
  /** True when nothing was heard for so long that revocations may have been missed: trust nothing that is open. */
  readonly missed: boolean
}
