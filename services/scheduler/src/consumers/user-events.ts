import { on } from '@cloudphone/bus/consumer'
import { UserCreated } from '@cloudphone/contracts/events/user-events'
import type { PhoneMirror } from '../domain/phone-news.ts'

/** User events: who is in which tenant. */
export function userEvents(mirror: PhoneMirror) {
  return [on(UserCreated, (tx, event) => mirror.hearUser(tx, event.data))]
}
