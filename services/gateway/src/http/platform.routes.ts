import * as api from '@cloudphone/contracts/api/platform-api'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { PlatformDoctor } from '../domain/doctor.ts'
import type { Fleet } from '../domain/fleet.ts'

/** What the gateway answers itself, from what all services say. */
export function platformRoutes({ fleet, doctor }: { fleet: Fleet; doctor: PlatformDoctor }): Binding[] {
  return [
    bind(api.ListSagas, ({ caller, query }) => fleet.sagas(caller, query)),
    bind(api.OutboxOverview, () => fleet.outboxes()),
    bind(api.ListDeadLetters, ({ query }) => fleet.deadLetters(query)),
    bind(api.Doctor, async () => {
      const { healthy, checkedAt, reports } = await doctor.examine()
      return { healthy, checkedAt: checkedAt.toISOString(), reports: [...reports] }
    }),
  ]
}
