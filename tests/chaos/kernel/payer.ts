import { setTimeout as sleep } from 'node:timers/promises'
import type { PaymentCallback } from '@cloudphone/saga/testing/purchase'
import type { CellDatabase } from './lane.ts'

/** Users at their payment pages, and the payment provider that calls back. */
export interface Payer {
  close(): Promise<void>
}

export interface PayerOptions {
  readonly query: CellDatabase['query']
  /** Resolves when the callback was taken. */
  readonly deliver: (callback: PaymentCallback) => Promise<void>
  /** Whether the user of an order pays; otherwise the payment is declined. */
  readonly pays: (orderId: string) => boolean
}

const LOOK_EVERY_MS = 40

/** Pays or declines as soon as a page is shown. Each callback comes twice, as providers' callbacks do. */
export function openPayer({ query, deliver, pays }: PayerOptions): Payer {
  const answered = new Set<string>()
  const closed = new AbortController()
  const turn = async (): Promise<void> => {
    const pages = await query<{ order: string; payment: string; saga: string }>(
      'select order_id as "order", payment_id as payment, saga_id as saga from payment_page',
    )
    for (const { order, payment, saga } of pages.filter((page) => !answered.has(page.order))) {
      answered.add(order)
      const at = new Date().toISOString()
      const callback = { id: payment, orderId: order, sagaId: saga, paid: pays(order), at }
      await deliver(callback)
      await deliver(callback)
    }
  }
  const work = async (): Promise<void> => {
    while (!closed.signal.aborted) {
      await turn()
      await sleep(LOOK_EVERY_MS)
    }
  }
  const working = work()
  // Its failure is told to whoever closes it.
  working.catch(() => undefined)
  return {
    async close() {
      closed.abort()
      await working
    },
  }
}
