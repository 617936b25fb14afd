/* What a route may cost: how long its answer may take, and how large a body it takes. */
import type { Route } from '@cloudphone/contracts/route'

export interface RouteClass {
  /** Without `?wait`. Undefined: bytes go one way or the other, and a slow line may take hours; their pace is bounded. */
  readonly deadlineMs: number | undefined
  /** Of the body. */
  readonly limitBytes: number
  /** The answer comes as things happen: its silence says nothing about the service. */
  readonly isLive: boolean
}

const plainDeadlineMs = 30_000
/** For what a long poll does besides waiting. */
const besidesWaitingMs = 15_000
const longestWaitSeconds = 60
const jsonLimitBytes = 1024 * 1024
/** The largest file, and what a form has besides it. */
const uploadLimitBytes = 2 * 1024 ** 3 + 4 * 1024 * 1024

/** The class of a route, by its contract. */
export function classOf({ upload, answer }: Pick<Route, 'upload' | 'answer'>): RouteClass {
  if (upload !== undefined) return { deadlineMs: undefined, limitBytes: uploadLimitBytes, isLive: false }
  return {
    deadlineMs: answer.kind === 'bytes' ? undefined : plainDeadlineMs,
    limitBytes: jsonLimitBytes,
    isLive: answer.kind === 'bytes' && answer.isLive === true,
  }
}

/**
 * The deadline of one request, in ms: of its class, longer by what it says it would wait, and never later than the caller's
 * own, if it sent one.
 */
export function deadlineOf(
  { deadlineMs }: RouteClass,
  { query, givenMs }: { query: unknown; givenMs: number | undefined },
): number | undefined {
  if (deadlineMs === undefined) return givenMs
  const waitSeconds = secondsOf(query)
  const ownMs = waitSeconds === 0 ? deadlineMs : waitSeconds * 1000 + besidesWaitingMs
  return givenMs === undefined ? ownMs : Math.min(ownMs, givenMs)
}

/** As the contract of the service will read it; what it refuses does not count. */
function secondsOf(query: unknown): number {
  const wait = typeof query === 'object' && query !== null && 'wait' in query ? Number(query.wait) : 0
  return wait > 0 && wait <= longestWaitSeconds ? wait : 0
}
