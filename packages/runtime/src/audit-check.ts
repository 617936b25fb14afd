import { mustBeAudited, type Route } from '@cloudphone/contracts/route'
import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'
import type { Scope } from './request-scope.ts'

/** Looks at a request that went well. @throws Error in tests, when its record is missing or another one. */
export type AuditCheck = (route: Route, scope: Scope) => void

/**
 * Notices changes that are not on record: a changing route of outsiders ends with exactly one record of the verb that its contract
 * names, unless the domain has said that nothing changed. Then the change stands and the gap is logged and counted;
 * `strict`, for tests, makes it an error.
 */
export function openAuditCheck(options: { log: Logger; metrics: Metrics; strict: boolean }): AuditCheck {
  const missing = options.metrics.counter({
    name: 'audit_records_missing_total',
    help: 'Changes by a request that are not in the audit log as its contract says: a bug.',
    labels: ['route'],
  })
  return (route, { verbs, nothingChanged, requestId }) => {
    if (!mustBeAudited(route) || typeof route.audit === 'object') return
    // A change may bring others along, such as the account that a first sign-in makes.
    if (verbs.length === 0 ? nothingChanged : verbs.filter((verb) => verb === route.audit).length === 1)
      return
    missing.inc({ route: route.name })
    options.log.error({
      event: 'audit.missing',
      route: route.name,
      wanted: route.audit,
      found: verbs,
      requestId,
    })
    if (options.strict) {
      throw new Error(
        `${route.name}: its record should be ${route.audit}, there are: ${verbs.join(', ') || 'none'}`,
      )
    }
  }
}
