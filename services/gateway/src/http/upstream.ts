import type { IncomingHttpHeaders } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { ServiceName } from '@cloudphone/contracts/services'
import type { Clock } from '@cloudphone/observe/clock'
import type { Span, Traceparent, Tracer } from '@cloudphone/observe/trace'
import type { Registry } from '@cloudphone/registry/registry'
import { startClientSpan } from '@cloudphone/runtime/client-span'
import { deadlineHeader } from '@cloudphone/runtime/deadline'
import { common, ProblemError } from '@cloudphone/runtime/problem'
import { Agent, type Dispatcher } from 'undici'
import { Balancer, type Outcome, RetryBudget } from '../domain/balancer.ts'
import { afterFailure, isFailing, mayRepeat } from '../domain/retry.ts'
import type { GatewayTelemetry } from '../telemetry.ts'
import type { PassingBody } from './request-body.ts'

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
}

/** Hears an answer as it comes: `head` once, then `data`, then `end`; or `fail`, at any time, as the last. */
export interface Receiver {
  head(status: number, headers: IncomingHttpHeaders): void
  /** False: no more before `resume`. */
  data(chunk: Buffer): boolean
  end(): void
  /** A ProblemError before the head, any error after it. */
  fail(error: Error): void
}

/** A request on its way. */
export interface Passage {
  resume(): void
  /** Nobody waits any more: nothing further is heard. */
  abort(reason: Error): void
}

/** A connection to an instance, which counts as pending there until `release`. */
export interface Line {
  readonly socket: Socket
  release(): void
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
const connectTimeoutMs = 2_000
const probeTimeoutMs = 1_000
const patienceMs = 10_000

interface Pool {
  readonly service: ServiceName
  readonly balancer: Balancer
  readonly budget: RetryBudget
}

interface Gear {
  readonly agent: Agent
  readonly registry: Registry
  readonly tracer: Tracer | undefined
  readonly clock: Clock
  readonly telemetry: GatewayTelemetry
  readonly poolOf: (service: ServiceName) => Pool
}

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
class Journey implements Passage {
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
    const { balancer, budget, service } = this.#pool
    balancer.know(addresses, this.#begunMs)
    if (balancer.isWatching) probe(this.gear, this.#pool)
    const waitMs = balancer.refusal(this.#begunMs)
    if (waitMs !== undefined) return void this.receiver.fail(paused(service, waitMs))
    budget.earn()
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

/** One sending of a request to one instance. */
class Attempt implements Dispatcher.DispatchHandler {
  readonly #journey: Journey
  readonly #address: string
  readonly #span: Span | undefined
  #controller: Dispatcher.DispatchController | undefined
  #stage: 'asked' | 'answering' | 'forgotten' = 'asked'
  #abortedBy: Error | undefined

  constructor(journey: Journey, address: string, span: Span | undefined) {
    this.#journey = journey
    this.#address = address
    this.#span = span
  }

  resume(): void {
    this.#controller?.resume()
  }

  abort(reason: Error): void {
    this.#abortedBy = reason
    this.#controller?.abort(reason)
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    if (this.#abortedBy !== undefined) controller.abort(this.#abortedBy)
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
  ): void {
    // Hints of what will come (RFC 9110, section 15.2) stay here.
    if (status < 200) return
    this.#endSpan(status)
    if (isFailing(status)) {
      if (this.#journey.asksElsewhere(this.#address, status)) {
        this.#stage = 'forgotten'
        return
      }
    } else this.#journey.note(this.#address, 'served')
    this.#stage = 'answering'
    this.#journey.receiver.head(status, headers)
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#stage === 'answering' && !this.#journey.receiver.data(chunk)) controller.pause()
  }

  onResponseEnd(): void {
    this.#journey.release(this.#address)
    if (this.#stage === 'answering') this.#journey.receiver.end()
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#journey.release(this.#address)
    if (this.#stage === 'forgotten') return
    if (this.#stage === 'answering') {
      if (this.#abortedBy === undefined) this.#journey.note(this.#address, 'unreachable')
      return void this.#journey.receiver.fail(error)
    }
    this.#span?.fail(error)
    this.#span?.end()
    if (this.#abortedBy === undefined) this.#journey.failed(this.#address, error)
  }

  #endSpan(status: number): void {
    const span = this.#span
    if (span === undefined) return
    span.note({ 'http.response.status_code': status })
    if (status >= 400) span.fail(`HTTP ${status}`, String(status))
    span.end()
  }
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

async function openLine(gear: Gear, service: ServiceName): Promise<Line> {
  const { registry, clock } = gear
  const pool = gear.poolOf(service)
  const { balancer } = pool
  balancer.know(await registry.lookup(service), clock.monotonicMs())
  if (balancer.isWatching) probe(gear, pool)
  const waitMs = balancer.refusal(clock.monotonicMs())
  if (waitMs !== undefined) throw paused(service, waitMs)
  const tried: string[] = []
  let failure: unknown
  for (;;) {
    const address = balancer.choose(tried)
    if (address === undefined) {
      balancer.noteFailed(clock.monotonicMs())
      throw unavailable(service, failure)
    }
    try {
      const socket = await connectTo(address)
      balancer.note(address, 'served', clock.monotonicMs())
      return { socket, release: () => balancer.release(address) }
    } catch (error) {
      balancer.release(address)
      balancer.note(address, 'unreachable', clock.monotonicMs())
      tried.push(address)
      failure = error
    }
  }
}

function connectTo(address: string): Promise<Socket> {
  const { hostname, port } = new URL(address)
  return new Promise((resolve, reject) => {
    const socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) })
    socket.setTimeout(connectTimeoutMs, () => socket.destroy(new Error('connect timed out')))
    socket.once('error', reject)
    socket.once('connect', () => {
      socket.setTimeout(0)
      socket.off('error', reject)
      resolve(socket)
    })
  })
}

function unavailable(service: ServiceName, cause: unknown): ProblemError {
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
