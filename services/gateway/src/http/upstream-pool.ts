/* Terminology:
 * - pool: the instances of a service as this gateway knows them: who is well, and what may still be repeated
 */
import type { ServiceName } from '@cloudphone/contracts/services'
import type { Clock } from '@cloudphone/observe/clock'
import type { Tracer } from '@cloudphone/observe/trace'
import type { Registry } from '@cloudphone/registry/registry'
import { common, ProblemError } from '@cloudphone/runtime/problem'
import type { Agent } from 'undici'
import type { Balancer, Outcome, RetryBudget } from '../domain/balancer.ts'
import type { GatewayTelemetry } from '../telemetry.ts'

/** To a connection that stands. */
export const connectTimeoutMs = 2_000
const probeTimeoutMs = 1_000

export interface Pool {
  readonly service: ServiceName
  readonly balancer: Balancer
  readonly budget: RetryBudget
}

/** What sending takes. */
export interface Gear {
  readonly agent: Agent
  readonly registry: Registry
  readonly tracer: Tracer | undefined
  readonly clock: Clock
  readonly telemetry: GatewayTelemetry
  readonly poolOf: (service: ServiceName) => Pool
}

/**
 * Makes known who is there, asks after those that are out of rotation, and says whether the service may be asked at all.
 * The refusal of the breaker, when nobody is to be asked.
 */
export function admit(gear: Gear, pool: Pool, addresses: readonly string[]): ProblemError | undefined {
  const { balancer, service } = pool
  const nowMs = gear.clock.monotonicMs()
  balancer.know(addresses, nowMs)
  if (balancer.isWatching) probe(gear, pool)
  const waitMs = balancer.refusal(nowMs)
  return waitMs === undefined ? undefined : paused(service, waitMs)
}

/** Asks those that are out of rotation how they are, when it is time. */
function probe({ agent, clock }: Gear, { balancer }: Pool): void {
  for (const origin of balancer.dueProbes(clock.monotonicMs())) {
    const note = (outcome: Outcome): void => balancer.note(origin, outcome, clock.monotonicMs())
    agent
      .request({
        ...{ origin, path: '/health/live', method: 'GET' },
        ...{ headersTimeout: probeTimeoutMs, bodyTimeout: probeTimeoutMs },
      })
      .then(async ({ statusCode, body }) => {
        await body.dump()
        note(statusCode < 500 ? 'served' : 'unreachable')
      })
      .catch(() => note('unreachable'))
  }
}

/** Nobody answers for a service. */
export function unavailable(service: ServiceName, cause: unknown): ProblemError {
  const problem = common.service_unavailable({ service })
  problem.cause = cause
  return problem
}

/** The breaker's refusal: nobody was asked. */
function paused(service: ServiceName, waitMs: number): ProblemError {
  const retryAfterSeconds = Math.max(1, Math.ceil(waitMs / 1000))
  return new ProblemError({
    status: 503,
    code: 'service_unavailable',
    detail: `No instance of the ${service} service answers now; try again in ${retryAfterSeconds} s.`,
    members: { service, retryAfterSeconds },
    retryAfterSeconds,
  })
}
