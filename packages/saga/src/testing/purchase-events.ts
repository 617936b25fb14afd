import { defineEvent } from '@cloudphone/contracts/event'
import type { Subscription } from '@cloudphone/contracts/topology'
import { z } from 'zod'

/* What the rooms of a purchase tell each other. */

const ofOrder = z.object({ sagaId: z.string(), orderId: z.string() })

export const AllocateRequested = defineEvent({
  name: 'device.allocate.requested',
  version: 1,
  aggregate: 'order',
  description: 'An order wants a device.',
  payload: ofOrder,
})

export const ReleaseRequested = defineEvent({
  name: 'device.release.requested',
  version: 1,
  aggregate: 'order',
  description: 'An order wants no device any more, whether it has one or not.',
  payload: ofOrder,
})

export const AllocateCompleted = defineEvent({
  name: 'device.allocate.completed',
  version: 1,
  aggregate: 'allocation',
  description: 'An order has its device.',
  payload: ofOrder.extend({ deviceId: z.string() }),
})

export const AllocateFailed = defineEvent({
  name: 'device.allocate.failed',
  version: 1,
  aggregate: 'allocation',
  description: 'An order gets no device.',
  payload: ofOrder.extend({ reason: z.string() }),
})

export const PaymentRequested = defineEvent({
  name: 'payment.requested',
  version: 1,
  aggregate: 'order',
  description: 'The user may pay: the saga waits for the callback from now on.',
  payload: ofOrder.extend({ paymentId: z.string(), amountMicros: z.int() }),
})

export const OrderPaid = defineEvent({
  name: 'order.paid',
  version: 1,
  aggregate: 'order',
  description: 'An order is paid and active.',
  payload: ofOrder,
})

export const OrderCancelled = defineEvent({
  name: 'order.cancelled',
  version: 1,
  aggregate: 'order',
  description: 'An order came to nothing.',
  payload: ofOrder.extend({ reason: z.string() }),
})

export const OrderRefunded = defineEvent({
  name: 'order.refunded',
  version: 1,
  aggregate: 'order',
  description: 'Money for an order that came to nothing goes back.',
  payload: ofOrder,
})

/** Who hears what of a purchase. */
export const purchaseTopology: readonly Subscription[] = [
  {
    queue: 'scheduler.device-allocate',
    service: 'scheduler',
    events: [AllocateRequested, ReleaseRequested],
    critical: true,
  },
  {
    queue: 'billing-service.saga-device-allocate',
    service: 'billing',
    events: [AllocateCompleted, AllocateFailed],
    critical: true,
  },
  {
    queue: 'notifications.payment-requested',
    service: 'notifications',
    events: [PaymentRequested],
    critical: true,
  },
  {
    queue: 'notifications.order',
    service: 'notifications',
    events: [OrderPaid, OrderCancelled, OrderRefunded],
    critical: true,
  },
]
