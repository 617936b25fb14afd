import { apps } from '@cloudphone/apps'
import { billing } from '@cloudphone/billing'
import type { ServiceName } from '@cloudphone/contracts/services'
import { devices } from '@cloudphone/devices'
import { gateway } from '@cloudphone/gateway'
import { notifications } from '@cloudphone/notifications'
import type { AnyService } from '@cloudphone/runtime/service'
import { scheduler } from '@cloudphone/scheduler'
import { users } from '@cloudphone/users'

/** Every service, in the order in which they start: what others lean on comes first, the door for users last. */
export const roster: readonly AnyService[] = [
  users,
  apps,
  billing,
  notifications,
  devices,
  scheduler,
  gateway,
]

/** The services of a selection, in starting order. */
export function selected(names: readonly ServiceName[]): readonly AnyService[] {
  return roster.filter((service) => names.includes(service.name))
}
