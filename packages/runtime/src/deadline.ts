import { AsyncLocalStorage } from 'node:async_hooks'

/* Terminology:
 * - deadline: when nobody waits for an answer any more. It goes with every call as the milliseconds that are left, since
 *   the clocks of two machines differ; the way between them is not counted
 */

/** The header that carries it, in whole milliseconds. */
export const deadlineHeader = 'x-deadline-ms'

const longestMs = 3_600_000
const current = new AsyncLocalStorage<number>()

/** What a request says of its deadline, in ms from now; undefined for nothing, or nothing that can be read. */
export function readDeadline(header: string | string[] | undefined): number | undefined {
  if (typeof header !== 'string' || !/^\d{1,9}$/.test(header)) return undefined
  return Math.min(Number(header), longestMs)
}

/** Runs `work` under a deadline at `atMs` of the process's monotonic time: calls of other services carry what is left. */
export function underDeadline<T>(atMs: number, work: () => T): T {
  return current.run(atMs, work)
}

/** What is left to the running code, in ms, 0 when the time is up; undefined without a deadline. */
export function deadlineLeftMs(nowMs: number): number | undefined {
  const atMs = current.getStore()
  return atMs === undefined ? undefined : Math.max(0, Math.floor(atMs - nowMs))
}
