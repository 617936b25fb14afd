/* What every service serves in the same way, and what the gateway makes of it. */
import { z } from 'zod'
import { SagaId, TenantId } from '../id.ts'
import { item, list, PageQuery, route } from '../route.ts'
import { ServiceName } from '../services.ts'

const SagaStatus = z.enum([
  'RUNNING',
  'COMPENSATING',
  'COMPLETED',
  'COMPENSATED',
  'COMPENSATION_STUCK',
  'QUARANTINED',
])

export const SagaView = z.object({
  sagaId: z.string(),
  type: z.string(),
  definitionVersion: z.int(),
  status: SagaStatus,
  currentStep: z.string(),
  stepIndex: z.int(),
  /** The step that is being done or undone, which `skip` would give up; null when it has ended or is not known. */
  standsAt: z
    .string()
    .nullable()
    .default(null)
    .meta({ description: 'The step that is being done or undone now.' }),
  retryCount: z.int(),
  errorMessage: z.string().nullable(),
  subject: z.string().nullable(),
  userId: z.string().nullable(),
  steps: z.array(
    z.object({
      name: z.string(),
      kind: z.enum(['local', 'call', 'ask']),
      status: z.enum(['pending', 'running', 'done', 'failed', 'undone', 'skipped']),
    }),
  ),
  timeline: z.array(
    z.object({
      step: z.string(),
      direction: z.enum(['do', 'undo']),
      attempt: z.int(),
      status: z.string(),
      error: z.string().nullable(),
      /** The operator who did it, where it was one; a service of the release before does not say. */
      actor: z.string().nullable().default(null),
      startedAt: z.iso.datetime(),
      endedAt: z.iso.datetime().nullable(),
    }),
  ),
  createdAt: z.iso.datetime(),
  updatedAt: z.iso.datetime(),
  endedAt: z.iso.datetime().nullable(),
  deadlineAt: z.iso.datetime(),
})
export type SagaView = z.infer<typeof SagaView>

/** One invariant of one service, as the doctor prints it. */
export const InvariantReport = z.object({
  /** The number in the architecture's list, 1 to 9. */
  invariant: z.int().min(1).max(9),
  name: z.string(),
  /** What was counted, such as `12 port holdings`. */
  figure: z.string(),
  holds: z.boolean(),
  /** Ids of what breaks it, at most 100. */
  culprits: z.array(z.object({ id: z.string(), detail: z.string() })),
})
export type InvariantReport = z.infer<typeof InvariantReport>

/** Facts that only a join over services can judge: claims by kind and id. */
export const Claim = z.object({ kind: z.string(), id: z.string(), detail: z.string() })
export type Claim = z.infer<typeof Claim>

const OutboxStatistics = z.object({
  pending: z.int(),
  failed: z.int(),
  published: z.int(),
  lagSeconds: z.number(),
})

const SagaQuery = PageQuery.extend({
  status: SagaStatus.optional(),
  type: z.string().max(64).optional(),
  userId: z.guid().optional(),
  /** `true`: only those that need somebody: halted, or overdue; the doctor names the same. */
  stuck: z
    .enum(['true', 'false'])
    .optional()
    .meta({ description: '`true`: only those that need somebody: halted, or overdue.' }),
})
export const BySaga = z.strictObject({ sagaId: SagaId })
const Wait = z.strictObject({
  /** Seconds to wait for the end. */
  wait: z.coerce.number().int().min(0).max(60).default(0),
  /** Answer earlier, as soon as the saga has moved on from this version of itself. */
  since: z.iso.datetime().optional(),
})

/** Routes that every service with a database serves; `of` binds them to one. */
export function platformRoutes(service: ServiceName) {
  return {
    getSaga: route({
      name: `${service}.getSaga`,
      service,
      method: 'GET',
      path: '/api/sagas/:sagaId',
      summary: 'One saga; `wait` holds the answer until it has ended.',
      access: { kind: 'user', permission: 'sagas:read' },
      params: BySaga,
      query: Wait,
      answer: item(SagaView),
      problems: ['saga_not_found'],
    }),
    listSagas: route({
      name: `${service}.listSagas`,
      service,
      method: 'GET',
      path: '/internal/sagas',
      summary: 'Sagas of this service, newest first.',
      access: { kind: 'service' },
      /** An operator sees his tenant's, as with a single saga. */
      query: SagaQuery.extend({ tenantId: TenantId.optional() }),
      answer: list(SagaView),
    }),
    outbox: route({
      name: `${service}.outbox`,
      service,
      method: 'GET',
      path: '/internal/outbox',
      summary: 'Statistics of the outbox.',
      access: { kind: 'service' },
      answer: item(OutboxStatistics),
    }),
    invariants: route({
      name: `${service}.invariants`,
      service,
      method: 'GET',
      path: '/internal/invariants',
      summary: 'The invariants that this service can judge by itself, and the claims that the doctor joins.',
      access: { kind: 'service' },
      answer: item(z.object({ reports: z.array(InvariantReport), claims: z.array(Claim) })),
    }),
  }
}

export const GetSaga = route({
  name: 'getSaga',
  service: 'gateway',
  method: 'GET',
  path: '/api/sagas/:sagaId',
  summary: 'One saga, from the service that runs it; `wait` (seconds) holds the answer until it has ended.',
  access: { kind: 'user', permission: 'sagas:read' },
  params: BySaga,
  query: Wait,
  answer: item(SagaView),
  problems: ['saga_not_found'],
})

export const ListSagas = route({
  name: 'listSagas',
  service: 'gateway',
  method: 'GET',
  path: '/api/sagas',
  summary: 'Sagas of all services, newest first: one’s own, or all for an operator.',
  access: { kind: 'user', permission: 'sagas:read' },
  query: SagaQuery,
  answer: list(SagaView),
})

export const Doctor = route({
  name: 'doctor',
  service: 'gateway',
  method: 'GET',
  path: '/api/doctor',
  summary: 'Checks every invariant of the platform now.',
  access: { kind: 'user', permission: 'platform:inspect' },
  answer: item(
    z.object({ healthy: z.boolean(), checkedAt: z.iso.datetime(), reports: z.array(InvariantReport) }),
  ),
})

export const OutboxOverview = route({
  name: 'outboxOverview',
  service: 'gateway',
  method: 'GET',
  path: '/api/outbox',
  summary: 'Statistics of every service’s outbox.',
  access: { kind: 'user', permission: 'platform:inspect' },
  answer: item(z.array(OutboxStatistics.extend({ service: ServiceName }))),
})
