/* A connection whose other end has vanished without closing it (a firewall that forgets, a pulled cable, a frozen proxy)
 * looks alive: what is sent goes nowhere and no answer comes. TCP needs some 15 minutes to notice, and never does when
 * something in between acknowledges. A limit on how long a query may take would notice, and would cut off every long
 * query and every wait for a lock. So a query without an answer is asked after, over a fresh connection: the server knows
 * whether it is at work on it.
 */
// Real time, never an injected clock: it is sockets that are watched.
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '@cloudphone/observe/log'
import pg from 'pg'
import { clientConfig, type DatabaseTarget } from './target.ts'

export interface SilenceOptions {
  /** The server itself: a pooler would name other backends. */
  readonly url: DatabaseTarget
  readonly applicationName: string
  readonly log: Logger
  /** A query that has waited so long for its answer is asked after. Default 5 s. */
  readonly suspectAfterMs?: number
}

/** What is watched of a connection. */
export interface Watched {
  readonly processID?: number | undefined
  /** With a query under way: cuts the connection, and the query fails. */
  end(): Promise<void>
}

/** The queries of one pool that wait for an answer. */
export interface SilenceWatch {
  /** Counts a query in; call what it returns when the answer is there. */
  begin(client: Watched): () => void
  /** Whether a connection was made before others of its pool fell silent: it will hardly be better than they. */
  isDoubtful(client: Watched): boolean
  close(): void
}

interface Waiting {
  readonly client: Watched
  /** Looks that have found it waiting. */
  looks: number
}

/** A look is half the time after which a query is suspect. */
const LOOKS = 2
/**
 * A server that is not reached so often either is gone, for whoever waits. A question may take as long as any new
 * connection (target.ts): a machine that is merely overloaded shall not lose the connections that it has.
 */
const MOST_FAILED_QUESTIONS = 3
const ANSWER_WITHIN_LOOKS = 4
const SUSPECT_AFTER_MS = 5_000

/** Watches the queries of a pool; costs a query an entry in a set, and a timer only while there are any. */
export function watchSilence({ url, applicationName, log, ...options }: SilenceOptions): SilenceWatch {
  const lookEveryMs = (options.suspectAfterMs ?? SUSPECT_AFTER_MS) / LOOKS
  const waiting = new Set<Waiting>()
  const known = new WeakMap<Watched, number>()
  let silentSinceMs = Number.NEGATIVE_INFINITY
  let failedQuestions = 0
  let looking = false
  let closed = false
  const failed = (err: unknown): void => log.error({ event: 'db.watch_failed', err })

  const look = async (): Promise<void> => {
    const suspects = [...waiting].filter((one) => {
      one.looks += 1
      return one.looks > LOOKS
    })
    if (suspects.length === 0) {
      failedQuestions = 0
      return
    }
    const pids = suspects.flatMap(({ client }) => client.processID ?? [])
    const answer = await askAfter({
      ...{ url, applicationName, pids, idleForMs: lookEveryMs, withinMs: ANSWER_WITHIN_LOOKS * lookEveryMs },
    })
    failedQuestions = answer === 'unreachable' ? failedQuestions + 1 : 0
    const isGone = failedQuestions >= MOST_FAILED_QUESTIONS
    const isAtWork = ({ client }: Waiting): boolean =>
      typeof answer === 'string' ? !isGone : answer.has(client.processID ?? 0)
    const lost = suspects.filter((one) => waiting.has(one) && !isAtWork(one))
    if (lost.length === 0) return
    silentSinceMs = performance.now()
    log.warn({ event: 'db.connection_silent', applicationName, connections: lost.length })
    for (const { client } of lost) {
      // Its query fails, which is how whoever waits hears of it.
      client.end().catch(() => undefined)
    }
  }
  const keepLooking = async (): Promise<void> => {
    if (looking) return
    looking = true
    while (waiting.size > 0 && !closed) {
      await sleep(lookEveryMs, undefined, { ref: false })
      // Not one after the other: one that was asked while nothing came through hangs, and the next one may not.
      void look().catch(failed)
    }
    looking = false
  }
  return {
    begin(client) {
      if (!known.has(client)) known.set(client, performance.now())
      const one: Waiting = { client, looks: 0 }
      waiting.add(one)
      if (!looking) void keepLooking().catch(failed)
      return () => waiting.delete(one)
    },
    isDoubtful: (client) => (known.get(client) ?? Number.POSITIVE_INFINITY) < silentSinceMs,
    close() {
      closed = true
    },
  }
}

/**
 * Which of these backends are at work on a query, or wait for a lock for it. One that has been idle for a while has
 * answered, or has never heard; either way nobody hears of it. It is ended, and what it has locked is free.
 */
async function askAfter({
  url,
  applicationName,
  pids,
  idleForMs,
  withinMs,
}: {
  url: DatabaseTarget
  applicationName: string
  pids: readonly number[]
  idleForMs: number
  withinMs: number
}): Promise<ReadonlySet<number> | 'busy' | 'unreachable'> {
  const client = new pg.Client({
    ...clientConfig(url, `${applicationName} watch`),
    connectionTimeoutMillis: withinMs,
    query_timeout: withinMs,
  })
  // The query that follows fails by itself.
  client.on('error', () => undefined)
  try {
    await client.connect()
    const { rows } = await client.query<{ pid: number; works: boolean }>(
      `with found as materialized (
         select pid, coalesce(state, '') not like 'idle%'
             or state_change > clock_timestamp() - $3 * interval '1 millisecond' as works -- real time: a network
         from pg_stat_activity
         where pid = any($1::integer[]) and usename = current_user and application_name = left($2, 63)),
       ended as materialized (select pg_terminate_backend(pid) from found where not works)
       select pid, works from found, (select count(*) from ended) as done`,
      [pids, applicationName, idleForMs],
    )
    return new Set(rows.filter(({ works }) => works).map(({ pid }) => pid))
  } catch (error) {
    // A server that refuses us is there: the next look asks again.
    return error instanceof pg.DatabaseError ? 'busy' : 'unreachable'
  } finally {
    void client.end().catch(() => undefined)
  }
}
