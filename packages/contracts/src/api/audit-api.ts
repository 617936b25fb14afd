/* Terminology:
 * - record: one change (or one deed whose outcome was awaited) in the audit log: who, what, to which thing, before, after
 * - actor: the user who did it; `system:<part>` where the platform did it by itself; `nobody` for an unknown caller
 * - target: the thing that was changed: its id
 *
 * Every service keeps the records of its own changes, in the transaction of the change; the gateway merges them.
 */
import { z } from 'zod'
import { TenantId } from '../id.ts'
import { bytes, list, PageQuery, route } from '../route.ts'
import { ServiceName } from '../services.ts'

export const AuditOutcome = z.enum(['unknown', 'done', 'refused', 'failed'])
export type AuditOutcome = z.infer<typeof AuditOutcome>

export const AuditEntry = z.object({
  id: z.string(),
  service: ServiceName,
  at: z.iso.datetime(),
  /** The user who did it, `system:<part>`, or `nobody`. */
  actor: z.string(),
  verb: z.string(),
  target: z.string(),
  /** Whose thing it was done to; null for the platform's own. */
  tenantId: z.string().nullable(),
  reason: z.string().nullable(),
  /** `unknown`: it is going on, or its process died in the middle; look at the target. */
  outcome: AuditOutcome,
  /** What came of it, or why not. */
  detail: z.string().nullable(),
  /** What it was before and what it is after, without secrets; null where there was or is nothing. */
  before: z.unknown().meta({ description: 'The thing before the change, without secrets.' }),
  after: z.unknown().meta({ description: 'The thing after the change, without secrets.' }),
  /** The request that did it, as its answer named it in X-Request-Id. */
  requestId: z.string().nullable(),
  /** The session, or the API key, of the caller. */
  sessionId: z.string().nullable(),
  /** The address that the caller came from. */
  address: z.string().nullable(),
})
export type AuditEntry = z.infer<typeof AuditEntry>

const words = (most: number) =>
  z
    .string()
    .min(1)
    .max(most)
    .regex(/^[^\p{Cc}]*$/u, 'must not hold control characters')

/** What to look for; all that are given must hold. */
const AuditFilter = z.strictObject({
  actor: words(200).optional(),
  verb: words(100).optional().meta({ description: 'The verb, or how it begins: `device.`' }),
  target: words(200).optional(),
  tenantId: TenantId.optional().meta({
    description: 'Only of this tenant. Of others than one’s own only for callers of the platform’s tenant.',
  }),
  requestId: words(64).optional(),
  from: z.iso.datetime({ offset: true }).optional(),
  /** Exclusive. */
  to: z.iso.datetime({ offset: true }).optional(),
  outcome: AuditOutcome.optional(),
})
export type AuditFilter = z.infer<typeof AuditFilter>

/** Asked of each service by the gateway, which has made sure of what the caller may see. */
export function auditRoutes(service: ServiceName) {
  return {
    listAudit: route({
      service,
      access: { kind: 'service' },
      name: `${service}.listAudit`,
      method: 'GET',
      path: '/internal/audit',
      summary: 'Changes in this service, newest first. Without a tenant those of all, and the platform’s.',
      query: PageQuery.extend(AuditFilter.shape),
      answer: list(AuditEntry),
    }),
  }
}

export const ListAudit = route({
  name: 'listAudit',
  service: 'gateway',
  method: 'GET',
  path: '/api/audit',
  summary:
    'Who changed what, newest first, in one’s own tenant; for callers of the platform’s tenant in all of them.',
  access: { kind: 'user', permission: 'audit:read' },
  query: PageQuery.extend(AuditFilter.shape),
  answer: list(AuditEntry),
  problems: ['foreign_tenant'],
})

export const ExportAudit = route({
  name: 'exportAudit',
  service: 'gateway',
  method: 'GET',
  path: '/api/audit/export',
  summary: 'All that a search finds, newest first, as one stream: a JSON document a line, or CSV.',
  access: { kind: 'user', permission: 'audit:read' },
  query: AuditFilter.extend({ format: z.enum(['ndjson', 'csv']).default('ndjson') }),
  answer: bytes('application/x-ndjson'),
  problems: ['foreign_tenant'],
})
