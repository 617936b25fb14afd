import { AsyncLocalStorage } from 'node:async_hooks'
import { randomBytes } from 'node:crypto'

/** A W3C trace context header: `00-<trace id>-<parent id>-<flags>`. */
export type Traceparent = string

const pattern = /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/
const current = new AsyncLocalStorage<Traceparent>()

/** The trace that the running code belongs to; undefined outside of any. */
export function currentTraceparent(): Traceparent | undefined {
  return current.getStore()
}

/** Runs `work` inside a trace: the given one when it is well-formed, else a new one. */
export function inTrace<T>(traceparent: string | undefined, work: () => T): T {
  return current.run(
    traceparent !== undefined && pattern.test(traceparent) ? traceparent : newTraceparent(),
    work,
  )
}

/** Starts a trace of its own, sampled. @see https://www.w3.org/TR/trace-context/#traceparent-header */
export function newTraceparent(): Traceparent {
  return `00-${randomBytes(16).toString('hex')}-${randomBytes(8).toString('hex')}-01`
}
