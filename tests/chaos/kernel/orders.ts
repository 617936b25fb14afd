import type { CrashAct } from '@cloudphone/observe/crash-point'
import type { PaymentCallback } from '@cloudphone/saga/testing/purchase'
import type { BusPlace, Timing, Wish } from './world.ts'

/* What a worker process and the drill say to each other over IPC. */

/** The world that a worker is to open. */
export interface WorldOrder {
  readonly url: string
  readonly bus: BusPlace
  readonly providerUrl: string
  readonly timing: Timing
}

/** Each is answered by `Done` when it is carried out. */
export type Order =
  /** From now on the worker asks at this crash point, and at no other, what shall happen; at none when it is undefined. */
  | { readonly verb: 'arm'; readonly point: string | undefined }
  | { readonly verb: 'open'; readonly world: WorldOrder }
  | { readonly verb: 'begin'; readonly wishes: readonly Wish[] }
  | { readonly verb: 'callback'; readonly callback: PaymentCallback }
  | { readonly verb: 'close' }

export type ToWorker =
  | { readonly kind: 'order'; readonly id: number; readonly order: Order }
  | { readonly kind: 'act'; readonly question: number; readonly act: CrashAct }

export type FromWorker =
  | { readonly kind: 'loaded' }
  | { readonly kind: 'done'; readonly id: number; readonly error?: string }
  | { readonly kind: 'reached'; readonly question: number; readonly executorId: string | null }
