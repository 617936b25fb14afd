import type { Bus } from '@cloudphone/bus/bus'
import { auditRoutes } from '@cloudphone/contracts/api/audit-api'
import { type InvariantReport, platformRoutes, type SagaView } from '@cloudphone/contracts/api/platform-api'
import type { ServiceName } from '@cloudphone/contracts/services'
import type { OutboxRelay } from '@cloudphone/outbox/outbox'
import { overtakenEvents } from '@cloudphone/outbox/outbox-rows'
import type { QueryExecutorProvider } from 'kysely'
import type { AuditLog } from './audit-log.ts'
import { decodeCursor, pageOf } from './cursor.ts'
import { deadLetterBindings, deadLettersOf } from './dead-letter-routes.ts'
import { type Binding, bind } from './http-server.ts'
import { overdueGraceMs, type SagaDesk, sagaBindings, sagaListBinding } from './saga-routes.ts'
import type { ServiceParts } from './service.ts'

interface Sources {
  readonly service: ServiceName
  readonly relay: OutboxRelay
  readonly database: { readonly kysely: QueryExecutorProvider }
  readonly bus: Bus
  readonly sagas: SagaDesk | undefined
  readonly audit: AuditLog
  readonly invariants: ServiceParts<unknown>['invariants']
}

/** The routes that every service with a schema serves in the same way. */
export function platformBindings(sources: Sources): readonly Binding[] {
  const { sagas, relay, bus, service, audit } = sources
  const routes = platformRoutes(service)
  return [
    ...(sagas === undefined ? [] : sagaBindings({ service, sagas, audit })),
    sagaListBinding(service, sagas),
    ...deadLetterBindings({ service, bus, audit }),
    bind(auditRoutes(service).listAudit, async ({ query: { limit, cursor, ...filter } }) => {
      const rows = await audit.search({ ...filter, limit: limit + 1, after: decodeCursor(cursor) })
      return pageOf(
        rows,
        limit,
        (row) => ({ ...row, service }),
        ({ id }) => id,
      )
    }),
    bind(routes.outbox, () => relay.statistics()),
    bind(routes.invariants, async () => {
      const own = (await sources.invariants?.()) ?? { reports: [], claims: [] }
      return { reports: [...own.reports, ...(await kernelReports(sources))], claims: [...own.claims] }
    }),
  ]
}

// Beyond these an operator should look, although nothing is lost yet (S11: lag under 10 s, failed near 0).
const lagLimitSeconds = 30

/** What the kernel itself knows about invariants 5, 6 and 8. */
async function kernelReports({ service, relay, bus, sagas, database }: Sources): Promise<InvariantReport[]> {
  const outbox = await relay.statistics()
  const dead = await deadLettersOf(bus, service, { limit: 100 })
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

async function sagaReport(service: ServiceName, sagas: SagaDesk): Promise<InvariantReport> {
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
