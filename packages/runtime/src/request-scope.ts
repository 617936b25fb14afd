/* Terminology:
 * - scope: the time in which one request, one event or one turn of a loop is worked on; what is changed in it is on record
 *   as done by its actor
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import type { AuditVerb } from '@cloudphone/contracts/route'

/** Who does what is done now, and for which request. */
export interface Cause {
  /** The user; `system:<part>` for the platform itself; `nobody` for an unknown caller. */
  readonly actor: string
  readonly requestId: string | null
  /** Of the session, or of the API key. */
  readonly sessionId: string | null
  readonly address: string | null
}

/** A cause, and what came of it so far. */
export interface Scope extends Cause {
  /** The verbs of the records that were committed. */
  readonly verbs: AuditVerb[]
  /** Said by the domain where a request found done what it asks for. */
  nothingChanged: boolean
  /** Set when the work is over: what goes on in the background since is no longer its doing. */
  over: boolean
}

/** For an unknown caller. */
export const nobody = 'nobody'

const scopes = new AsyncLocalStorage<Scope>()

/** Runs `work`, whose changes are on record as those of `cause`. */
export async function inScope<Result>(
  cause: Cause,
  work: (scope: Scope) => Promise<Result>,
): Promise<Result> {
  const scope: Scope = { ...cause, verbs: [], nothingChanged: false, over: false }
  try {
    return await scopes.run(scope, () => work(scope))
  } finally {
    scope.over = true
  }
}

/** Runs what the platform does by itself: the actor of its changes is `system:<part>`. */
export function bySystem<Result>(part: string, work: () => Promise<Result>): Promise<Result> {
  return inScope({ actor: `system:${part}`, requestId: null, sessionId: null, address: null }, work)
}

/** The scope in which this is asked; undefined outside of any, and when that one is over. */
export function currentScope(): Scope | undefined {
  const scope = scopes.getStore()
  return scope?.over === false ? scope : undefined
}
