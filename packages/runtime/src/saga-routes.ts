import { type Caller, may } from '@cloudphone/contracts/access'
import { operatorRoutes } from '@cloudphone/contracts/api/operator-api'
import { platformRoutes, type SagaView } from '@cloudphone/contracts/api/platform-api'
import type { AuditVerb } from '@cloudphone/contracts/route'
import type { ServiceName } from '@cloudphone/contracts/services'
import type { Sagas } from '@cloudphone/saga/engine'
import type { SagaView as StoredSaga } from '@cloudphone/saga/view'
import type { AuditLog } from './audit-log.ts'
import { decodeCursorOf, pageOf } from './cursor.ts'
import { type Binding, bind } from './http-server.ts'
import { defineProblems } from './problem.ts'

/** What the routes need of the engine. */
export type SagaDesk = Pick<
  Sagas,
  | 'get'
  | 'list'
  | 'waitForEnd'
  | 'waitForChange'
  | 'overdue'
  | 'countByStatus'
  | 'retry'
  | 'skip'
  | 'turnBack'
>

/** A deadline flips a saga into compensation, which takes its own time: overdue is who has not ended so long after it. */
export const overdueGraceMs = 60_000

const problems = defineProblems({ saga_not_found: [404, 'There is no saga {sagaId}.'] })

interface Sources {
  readonly service: ServiceName
  readonly sagas: SagaDesk
  readonly audit: AuditLog
}

/** The routes on the sagas of one service: to read them, and what operators may do to them. */
export function sagaBindings({ service, sagas, audit }: Sources): readonly Binding[] {
  const reading = platformRoutes(service)
  const verbs = operatorRoutes(service)

  /** Does it to a saga of the operator's tenant, on the record, and answers with the saga as it stands then. */
  const operate = async (
    { caller, verb, reason }: { caller: Caller; verb: AuditVerb; reason: string | undefined },
    sagaId: string,
    { work, said }: { work: () => Promise<void>; said: (saga: StoredSaga) => string },
  ): Promise<SagaView> => {
    const found = await sagas.get(sagaId)
    if (found === undefined || !isOfTenant(caller, found)) throw problems.saga_not_found({ sagaId })
    const { userId, tenantId } = caller
    await audit.record(
      {
        ...{ actor: { userId, tenantId }, verb, reason, target: sagaId, tenantId: found.tenantId },
        before: { type: found.type, status: found.status, standsAt: found.standsAt, subject: found.subject },
      },
      work,
      () => said(found),
    )
    return viewOf((await sagas.get(sagaId)) ?? found)
  }

  return [
    bind(reading.getSaga, ({ params, query, caller, signal }) =>
      readSaga(sagas, caller, { sagaId: params.sagaId, ...query, signal }),
    ),
    bind(verbs.retrySaga, ({ params: { sagaId }, body: { reason }, caller }) =>
      operate({ caller, verb: 'saga.retry', reason }, sagaId, {
        work: () => sagas.retry(sagaId, caller.userId),
        said: ({ standsAt, status }) => `${status} at ${standsAt}, tried again`,
      }),
    ),
    bind(verbs.skipSagaStep, ({ params: { sagaId }, body: { step, reason }, caller }) =>
      operate({ caller, verb: 'saga.skip', reason }, sagaId, {
        work: () => sagas.skip({ sagaId, step, reason, actor: caller.userId }),
        said: ({ status }) => `${status}, skipped ${step}`,
      }),
    ),
    bind(verbs.turnSagaBack, ({ params: { sagaId }, body: { reason }, caller }) =>
      operate({ caller, verb: 'saga.turn_back', reason }, sagaId, {
        work: () => sagas.turnBack({ sagaId, reason, code: 'turned_back_by_operator', actor: caller.userId }),
        said: ({ standsAt, status }) => `${status} at ${standsAt}, turned back`,
      }),
    ),
  ]
}

/** The list of sagas; a service without any has an empty one. */
export function sagaListBinding(service: ServiceName, sagas: SagaDesk | undefined): Binding {
  return bind(platformRoutes(service).listSagas, async ({ query: { limit, cursor, stuck, ...filter } }) => {
    const after = sagaPlace(cursor)
    const needy = stuck === 'true' ? { stuckAfterMs: overdueGraceMs } : {}
    const rows = (await sagas?.list({ ...filter, ...needy, limit: limit + 1, after })) ?? []
    return pageOf(rows, limit, viewOf, ({ createdAt, sagaId }) => `${Date.parse(createdAt)}_${sagaId}`)
  })
}

async function readSaga(
  sagas: SagaDesk,
  caller: Caller,
  {
    sagaId,
    wait,
    since,
    signal,
  }: { sagaId: string; wait: number; since?: string | undefined; signal: AbortSignal },
): Promise<SagaView> {
  const found = await sagas.get(sagaId)
  if (found === undefined || !mayRead(caller, found)) throw problems.saga_not_found({ sagaId })
  if (wait === 0 || found.endedAt !== null) return viewOf(found)
  const options = { timeoutMs: wait * 1000, signal }
  const later =
    since === undefined
      ? await sagas.waitForEnd(sagaId, options)
      : await sagas.waitForChange(sagaId, { ...options, since })
  return viewOf(later ?? found)
}

/** A saga is its user's; operators see those of their tenant. Anybody else does not learn that it exists. */
function mayRead(caller: Caller, saga: StoredSaga): boolean {
  return saga.userId === caller.userId || (may(caller, 'sagas:any') && isOfTenant(caller, saga))
}

function isOfTenant(caller: Caller, saga: StoredSaga): boolean {
  return saga.tenantId === null || saga.tenantId === caller.tenantId
}

function viewOf(saga: SagaView): SagaView {
  return {
    sagaId: saga.sagaId,
    type: saga.type,
    definitionVersion: saga.definitionVersion,
    status: saga.status,
    currentStep: saga.currentStep,
    stepIndex: saga.stepIndex,
    standsAt: saga.standsAt,
    retryCount: saga.retryCount,
    errorMessage: saga.errorMessage,
    subject: saga.subject,
    userId: saga.userId,
    steps: saga.steps,
    timeline: saga.timeline,
    createdAt: saga.createdAt,
    updatedAt: saga.updatedAt,
    endedAt: saga.endedAt,
    deadlineAt: saga.deadlineAt,
  }
}

/** Sagas are listed by when they began, and by id where that is the same. */
function sagaPlace(cursor: string | undefined): { createdAt: string; sagaId: string } | undefined {
  const [, createdMs, sagaId] = decodeCursorOf(/^(\d{1,15})_([\w-]{1,100})$/, cursor) ?? []
  if (createdMs === undefined || sagaId === undefined) return undefined
  return { createdAt: new Date(Number(createdMs)).toISOString(), sagaId }
}
