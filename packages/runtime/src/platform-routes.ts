import type { Bus, DeadLetter } from '@cloudphone/bus/bus'
import { type Caller, may } from '@cloudphone/contracts/access'
import { type InvariantReport, platformRoutes, type SagaView } from '@cloudphone/contracts/api/platform-api'
import type { ServiceName } from '@cloudphone/contracts/services'
import { subscriptions } from '@cloudphone/contracts/topology'
import type { OutboxRelay } from '@cloudphone/outbox/outbox'
import { overtakenEvents } from '@cloudphone/outbox/outbox-rows'
import type { Sagas } from '@cloudphone/saga/engine'
import type { SagaView as StoredSaga } from '@cloudphone/saga/view'
import type { QueryExecutorProvider } from 'kysely'
import { decodeCursor, pageOf } from './cursor.ts'
import { type Binding, bind } from './http-server.ts'
import { defineProblems } from './problem.ts'
import type { ServiceParts } from './service.ts'

type SagaReader = Pick<Sagas, 'get' | 'list' | 'waitForEnd' | 'waitForChange' | 'overdue' | 'countByStatus'>

const problems = defineProblems({ saga_not_found: [404, 'There is no saga {sagaId}.'] })

interface Sources {
  readonly service: ServiceName
  readonly relay: OutboxRelay
  readonly database: { readonly kysely: QueryExecutorProvider }
  readonly bus: Bus
  readonly sagas: SagaReader | undefined
  readonly invariants: ServiceParts<unknown>['invariants']
}

/** The routes that every service with a schema serves in the same way. */
export function platformBindings(sources: Sources): readonly Binding[] {
  const routes = platformRoutes(sources.service)
  const { sagas, relay, bus, service } = sources
  const sagaBindings =
    sagas === undefined
      ? []
      : [
          bind(routes.getSaga, ({ params, query, caller, signal }) =>
            readSaga(sagas, caller, { sagaId: params.sagaId, ...query, signal }),
          ),
        ]
  return [
    ...sagaBindings,
    bind(routes.listSagas, async ({ query: { limit, cursor, ...filter } }) => {
      const after = sagaCursor(decodeCursor(cursor))
      const rows = (await sagas?.list({ ...filter, limit: limit + 1, after })) ?? []
      return pageOf(rows, limit, viewOf, ({ createdAt, sagaId }) => `${Date.parse(createdAt)}_${sagaId}`)
    }),
    bind(routes.outbox, () => relay.statistics()),
    bind(routes.deadLetters, async ({ query: { limit, cursor } }) => {
      const after = decodeCursor(cursor)
      const rows = await deadLettersOf(bus, service, { limit: limit + 1, after })
      return pageOf(rows, limit, deadLetterView, ({ id }) => id)
    }),
    bind(routes.invariants, async () => {
      const own = (await sources.invariants?.()) ?? { reports: [], claims: [] }
      return { reports: [...own.reports, ...(await kernelReports(sources))], claims: [...own.claims] }
    }),
  ]
}

async function readSaga(
  sagas: SagaReader,
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
  if (saga.userId === caller.userId) return true
  return may(caller, 'sagas:any') && (saga.tenantId === null || saga.tenantId === caller.tenantId)
}

function viewOf(saga: SagaView): SagaView {
  return {
    sagaId: saga.sagaId,
    type: saga.type,
    definitionVersion: saga.definitionVersion,
    status: saga.status,
    currentStep: saga.currentStep,
    stepIndex: saga.stepIndex,
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

function sagaCursor(cursor: string | undefined): { createdAt: string; sagaId: string } | undefined {
  const match = /^(\d+)_([\w-]+)$/.exec(cursor ?? '')
  if (match?.[1] === undefined || match[2] === undefined) return undefined
  return { createdAt: new Date(Number(match[1])).toISOString(), sagaId: match[2] }
}

async function deadLettersOf(
  bus: Bus,
  service: ServiceName,
  page: { limit: number; after: string | undefined },
): Promise<readonly DeadLetter[]> {
  const queues = subscriptions.filter((one) => one.service === service).map((one) => one.queue)
  const all = await Promise.all(
    queues.map((queue) =>
      bus.deadLetters.list({
        queue,
        limit: page.limit,
        ...(page.after !== undefined && { after: page.after }),
      }),
    ),
  )
  return all
    .flat()
    .sort((a, b) => (a.id < b.id ? 1 : -1))
    .slice(0, page.limit)
}

function deadLetterView(letter: DeadLetter) {
  const { id, queue, eventId, eventType, error, attempts, diedAt } = letter
  return { id, queue, eventId, eventType, error, attempts, diedAt: diedAt.toISOString() }
}

// Beyond these an operator should look, although nothing is lost yet (S11: lag under 10 s, failed near 0).
const lagLimitSeconds = 30
// A deadline flips a saga into compensation, which takes its own time.
const overdueGraceMs = 60_000

/** What the kernel itself knows about invariants 5, 6 and 8. */
async function kernelReports({ service, relay, bus, sagas, database }: Sources): Promise<InvariantReport[]> {
  const outbox = await relay.statistics()
  const dead = await deadLettersOf(bus, service, { limit: 100, after: undefined })
  const { checked, overtaken } = await overtakenEvents(database.kysely, 100)
  const reports: InvariantReport[] = [
    {
      invariant: 5,
      name: `events of ${service} reach their consumers`,
      figure: `${outbox.pending} pending, ${outbox.failed} failed, ${dead.length} dead letters, lag ${outbox.lagSeconds.toFixed(1)} s`,
      holds: outbox.failed === 0 && dead.length === 0 && outbox.lagSeconds < lagLimitSeconds,
      culprits: dead.map((letter) => ({ id: letter.id, detail: `${letter.queue}: ${letter.error}` })),
    },
    {
      invariant: 6,
      name: `no event of ${service} overtakes another of its aggregate`,
      figure: `${checked} waiting, ${overtaken.length} overtaken`,
      holds: overtaken.length === 0,
      culprits: overtaken.map(({ aggregate, eventId }) => ({ id: eventId, detail: aggregate })),
    },
  ]
  if (sagas !== undefined) reports.push(await sagaReport(service, sagas))
  return reports
}

async function sagaReport(service: ServiceName, sagas: SagaReader): Promise<InvariantReport> {
  const counts = await sagas.countByStatus()
  const count = (status: SagaView['status']) => counts.get(status) ?? 0
  const overdue = await sagas.overdue({ graceMs: overdueGraceMs, limit: 100 })
  const halted = (
    await Promise.all(
      (['COMPENSATION_STUCK', 'QUARANTINED'] as const).map((status) => sagas.list({ status, limit: 100 })),
    )
  ).flat()
  return {
    invariant: 8,
    name: `sagas of ${service} end`,
    figure: `${count('RUNNING') + count('COMPENSATING')} under way, ${count('COMPLETED')} completed, ${count('COMPENSATED')} compensated, ${halted.length} halted`,
    holds: halted.length === 0 && overdue.length === 0,
    culprits: [
      ...halted.map((saga) => ({ id: saga.sagaId, detail: `${saga.status}: ${saga.errorMessage ?? ''}` })),
      ...overdue.map((saga) => ({
        id: saga.sagaId,
        detail: `${saga.status}, overdue by ${Math.round(saga.overdueMs / 1000)} s`,
      })),
    ],
  }
}
