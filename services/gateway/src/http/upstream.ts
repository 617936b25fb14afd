import type { ServiceName } from '@cloudphone/contracts/services'
import type { Clock } from '@cloudphone/observe/clock'
import type { Traceparent, Tracer } from '@cloudphone/observe/trace'
import type { Registry } from '@cloudphone/registry/registry'
import { startClientSpan } from '@cloudphone/runtime/client-span'
import { deadlineHeader } from '@cloudphone/runtime/deadline'
import { common, ProblemError } from '@cloudphone/runtime/problem'
import { Agent, type Dispatcher } from 'undici'
import { Balancer, type Outcome, RetryBudget } from '../domain/balancer.ts'
import { afterFailure, mayRepeat } from '../domain/retry.ts'
import type { GatewayTelemetry } from '../telemetry.ts'
import { Attempt, type Receiver, type Sender } from './attempt.ts'
import type { PassingBody } from './request-body.ts'
import { type Line, openLine } from './socket-line.ts'
import { admit, connectTimeoutMs, type Gear, type Pool, unavailable } from './upstream-pool.ts'

/** A request for a service, whichever of its instances takes it. */
export interface ForwardedRequest {
  readonly service: ServiceName
  readonly method: Dispatcher.HttpMethod
  readonly path: string
  /** The route's path with its parameters unfilled: names the span. */
  readonly template: string
  /** Names and values in turn, without those of trace and deadline. */
  readonly headers: readonly string[]
  readonly traceparent: Traceparent
  /** False: of a trace that nobody takes, and no span is made. */
  readonly isTraced: boolean
  readonly body: PassingBody | undefined
  /** From now to the head of the answer; undefined where a body may take its time, which is bounded by its pace. */
  readonly deadlineMs: number | undefined
  /** The answer comes as things happen, and may be silent for any time. */
  readonly isLive: boolean
}

/** A request on its way. */
export interface Passage {
  resume(): void
  /** Nobody waits any more: nothing further is heard. */
  abort(reason: Error): void
}

/** The services behind the gateway. */
export interface Upstream {
  /** Sends a request to the instance with the least to do, and elsewhere when that one is gone. */
  send(request: ForwardedRequest, receiver: Receiver): Passage
  /** A plain connection to an instance. @throws ProblemError `service_unavailable` when none can be reached. */
  open(service: ServiceName): Promise<Line>
  close(): Promise<void>
}

/** Of routes without a deadline: from the last byte of the request to the head of the answer. */
const longAnswerMs = 75_000
/** The service's own refusal for a deadline comes first. */
const graceMs = 1_000
const bodyTimeoutMs = 60_000
const patienceMs = 10_000

/** Opens connections to services on demand, keeps them alive and knows which instances are well. */
export function openUpstream(options: {
  registry: Registry
  tracer: Tracer | undefined
  clock: Clock
  telemetry: GatewayTelemetry
}): Upstream {
  const { registry, clock, telemetry } = options
  const agent = new Agent({
    connections: 1_024,
    keepAliveTimeout: 30_000,
    headersTimeout: longAnswerMs,
    bodyTimeout: bodyTimeoutMs,
    connect: { timeout: connectTimeoutMs },
  })
  const pools = new Map<ServiceName, Pool>()
  const poolOf = (service: ServiceName): Pool => {
    let pool = pools.get(service)
    if (pool === undefined) {
      const balancer = new Balancer(telemetry.balancerEvents(service))
      pool = { service, balancer, budget: new RetryBudget() }
      pools.set(service, pool)
    }
    return pool
  }
  telemetry.watchUpstream(() =>
    [...pools.values()].map(({ service, balancer }) => ({
      service,
      ...balancer.state(clock.monotonicMs()),
    })),
  )
  const gear: Gear = { ...options, agent, poolOf }
  return {
    send: (request, receiver) => {
      const journey = new Journey(gear, request, receiver)
      registry.lookup(request.service).then(
        (addresses) => journey.begin(addresses),
        (error: unknown) => receiver.fail(unavailable(request.service, error)),
      )
      return journey
    },
    open: (service) => openLine(gear, service),
    close: () => agent.destroy(),
  }
}

/** A request on its way through one instance or several. */
class Journey implements Passage, Sender {
  readonly request: ForwardedRequest
  readonly receiver: Receiver
  readonly gear: Gear
  readonly #pool: Pool
  readonly #headers: string[]
  readonly #begunMs: number
  #tried: string[] = []
  #isRepeated = false
  #attempt: Attempt | undefined
  #isAborted = false

  constructor(gear: Gear, request: ForwardedRequest, receiver: Receiver) {
    this.gear = gear
    this.request = request
    this.receiver = receiver
    this.#pool = gear.poolOf(request.service)
    this.#headers = [...request.headers, 'traceparent', request.traceparent]
    if (request.deadlineMs !== undefined) this.#headers.push(deadlineHeader, String(request.deadlineMs))
    this.#begunMs = gear.clock.monotonicMs()
  }

  begin(addresses: readonly string[]): void {
    if (this.#isAborted) return
    const refusal = admit(this.gear, this.#pool, addresses)
    if (refusal !== undefined) return void this.receiver.fail(refusal)
    this.#pool.budget.earn()
    this.#try(undefined, undefined)
  }

  resume(): void {
    this.#attempt?.resume()
  }

  abort(reason: Error): void {
    this.#isAborted = true
    this.#attempt?.abort(reason)
  }

  /** After the failure of an attempt, if there was one; without another instance it is the end. */
  #try(failed: string | undefined, failure: Error | undefined): void {
    const { method, path, template, body, traceparent, deadlineMs } = this.request
    const address = this.#pool.balancer.choose(this.#tried)
    if (address === undefined) return void this.#giveUp(failed, failure)
    const span = this.request.isTraced
      ? startClientSpan(this.gear.tracer, { method, path, template, origin: address }, traceparent)
      : undefined
    const at = this.request.headers.length
    if (span !== undefined) this.#headers[at + 1] = span.traceparent
    let headersTimeout = deadlineMs === undefined ? longAnswerMs : deadlineMs + graceMs
    if (failure !== undefined && deadlineMs !== undefined) {
      const leftMs = Math.max(1, Math.round(this.#begunMs + deadlineMs - this.gear.clock.monotonicMs()))
      this.#headers[at + 3] = String(leftMs)
      headersTimeout = leftMs + graceMs
    }
    const attempt = new Attempt(this, address, span)
    this.#attempt = attempt
    const { agent } = this.gear
    agent.dispatch(
      {
        ...{ origin: address, method, path, headersTimeout },
        ...(this.request.isLive && { bodyTimeout: 0 }),
        ...{
          headers: failure === undefined ? this.#headers : [...this.#headers],
          body: body?.open() ?? null,
        },
      },
      attempt,
    )
  }

  /** The instance is done with this request. */
  release(address: string): void {
    this.#pool.balancer.release(address)
  }

  note(address: string, outcome: Outcome): void {
    this.#pool.balancer.note(address, outcome, this.gear.clock.monotonicMs())
  }

  /** True when a bad answer is better forgotten: another instance is asked instead. */
  asksElsewhere(address: string, status: number): boolean {
    const { method, body, service } = this.request
    const isLate = status === 504
    if (!isLate || this.#isPatient()) this.note(address, 'failing')
    if (isLate || this.#isRepeated || !mayRepeat(method) || body?.isTouched()) return false
    if (!this.#pool.balancer.hasOther(address) || !this.#pool.budget.spend()) return false
    this.#isRepeated = true
    this.gear.telemetry.retried({ service, why: 'answer' })
    this.#tried.push(address)
    this.#try(address, new Error(`HTTP ${status} from ${address}`))
    return true
  }

  /** An attempt ended without an answer. */
  failed(address: string, error: Error): void {
    if (this.#isAborted) return
    if (error instanceof ProblemError) return void this.receiver.fail(error)
    const { method, body, service } = this.request
    const { balancer, budget } = this.#pool
    const { outcome, next } = afterFailure(error, { method, isBodyTouched: body?.isTouched() ?? false })
    if (outcome === 'unreachable' || (outcome === 'failing' && this.#isPatient())) this.note(address, outcome)
    if (next === 'end') return void this.#giveUp(address, error)
    // What was sent may be repeated once, and only while few are; what never left may go wherever somebody is.
    if (next === 'repeat') {
      if (this.#isRepeated || !budget.spend()) return void this.#giveUp(address, error)
      this.#isRepeated = true
    }
    this.gear.telemetry.retried({ service, why: next === 'repeat' ? 'broken' : 'never sent' })
    // The only one may have closed a connection that was idle: it is asked again.
    if (next === 'move' || balancer.hasOther(address)) this.#tried.push(address)
    this.#try(address, error)
  }

  /** Somebody who gives us a moment only learns nothing about an instance, and must not put it out of rotation. */
  #isPatient(): boolean {
    return (this.request.deadlineMs ?? longAnswerMs) >= patienceMs
  }

  #giveUp(address: string | undefined, cause: Error | undefined): void {
    const { service, deadlineMs } = this.request
    const { balancer } = this.#pool
    if (address === undefined || (this.#isPatient() && !balancer.hasOther(address))) {
      balancer.noteFailed(this.gear.clock.monotonicMs())
    }
    const isLate = cause !== undefined && 'code' in cause && cause.code === 'UND_ERR_HEADERS_TIMEOUT'
    if (!isLate) return void this.receiver.fail(unavailable(service, cause))
    const problem = common.deadline_exceeded({ service, waitedMs: deadlineMs ?? longAnswerMs })
    problem.cause = cause
    this.receiver.fail(problem)
  }
}
