import * as operator from '@cloudphone/contracts/api/operator-api'
import * as api from '@cloudphone/contracts/api/platform-api'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { PlatformDoctor } from '../domain/doctor.ts'
import type { Fleet } from '../domain/fleet.ts'
import type { Operations } from '../domain/operations.ts'

/** What the gateway answers itself, from what all services say. */
export function platformRoutes({
  fleet,
  operations,
  doctor,
}: {
  fleet: Fleet
  operations: Operations
  doctor: PlatformDoctor
}): Binding[] {
  return [
    bind(api.ListSagas, ({ caller, query }) => fleet.sagas(caller, query)),
    bind(api.OutboxOverview, () => fleet.outboxes()),
    bind(operator.ListDeadLetters, ({ query }) => operations.deadLetters(query)),
    bind(operator.GetDeadLetter, ({ params }) => operations.deadLetter(params.deadLetterId)),
    bind(operator.ReplayDeadLetter, ({ caller, params, body }) =>
      operations.replay(caller, params.deadLetterId, body.reason),
    ),
    bind(operator.ReplayDeadLetters, ({ caller, body }) => operations.replayAll(caller, body)),
    bind(api.Doctor, async () => {
      const { healthy, checkedAt, reports } = await doctor.examine()
      return { healthy, checkedAt: checkedAt.toISOString(), reports: [...reports] }
    }),
  ]
}
