import * as api from '@cloudphone/contracts/api/scheduler-api'
import { decodeCursor, pageOf } from '@cloudphone/runtime/cursor'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { AllocationService } from '../domain/allocation-service.ts'
import { viewOfAccepted, viewOfAllocation } from './allocation.view.ts'

/** Allocations over HTTP. */
export function allocationRoutes(allocations: AllocationService): Binding[] {
  return [
    bind(api.CreateAllocation, async ({ caller, body, requestKey }) =>
      viewOfAccepted(await allocations.request(caller, body, requestKey)),
    ),
    bind(api.GetAllocation, async ({ caller, params }) =>
      viewOfAllocation(await allocations.get(caller, params.allocationId)),
    ),
    bind(api.ListUserAllocations, async ({ caller, params, query }) => {
      const rows = await allocations.list(caller, {
        ...{ userId: params.userId, status: query.status, limit: query.limit },
        beforeId: decodeCursor(query.cursor),
      })
      return pageOf(rows, query.limit, viewOfAllocation, ({ id }) => id)
    }),
    bind(api.ReleaseAllocation, async ({ caller, params }) =>
      viewOfAccepted(await allocations.release(caller, params.allocationId)),
    ),
  ]
}
