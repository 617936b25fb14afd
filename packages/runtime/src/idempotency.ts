import { createHash, randomUUID } from 'node:crypto'
import type { Database } from '@cloudphone/db/database'
import { sql } from 'kysely'
import { common, ProblemError } from './problem.ts'

/** Keeps answers by caller, route and Idempotency-Key for 24 hours (decision 6). */
export interface Idempotency {
  /**
   * Runs `work` at the first request under a key and keeps its answer; later ones get that answer.
   * @throws ProblemError `idempotency_key_reused` (422) for another body, `request_in_progress` (409) while the first runs.
   */
  once<Result>(
    request: { caller: string; route: string; key: string; body: string },
    work: (requestKey: string) => Promise<Result>,
  ): Promise<Result>
  /** Deletes what has expired; returns how many. */
  purge(): Promise<number>
}

/** The folder with the tables of idempotency keys and of the audit log, for `migrate`. Needs `app_now()`. */
export const RUNTIME_MIGRATIONS = new URL('../migrations/', import.meta.url)

interface Claim {
  claimed: boolean
  body_hash: string
  request_key: string
  answered: boolean
  response: unknown
}

// As long as a call between services may take. After kill -9 in the middle of a request, its caller waits so long; a
// request that is merely slower meets its double under the same request_key, which finds what the first has started.
const busySeconds = 10

export function openIdempotency(database: Database<unknown>): Idempotency {
  const claim = async (
    caller: string,
    route: string,
    key: string,
    bodyHash: string,
  ): Promise<Claim | undefined> => {
    const inserted = await sql<Claim>`
      insert into idempotency_key as k (caller, route, key, body_hash, request_key, busy_until, expires_at)
      values (${caller}, ${route}, ${key}, ${bodyHash}, ${randomUUID()},
              app_now() + make_interval(secs => ${busySeconds}), app_now() + interval '24 hours')
      on conflict (caller, route, key) do update
        set busy_until = excluded.busy_until
        where not k.answered and k.busy_until <= app_now() and k.body_hash = excluded.body_hash
      returning true as claimed, body_hash, request_key, answered, response`.execute(database.kysely)
    if (inserted.rows[0] !== undefined) return inserted.rows[0]
    const kept = await sql<Claim>`
      select false as claimed, body_hash, request_key, answered, response from idempotency_key
      where caller = ${caller} and route = ${route} and key = ${key}`.execute(database.kysely)
    return kept.rows[0]
  }

  /**
   * A refused request changed nothing, so its key is free again. After any other error nobody knows what was done: the
   * row stays with its request_key, open for the next try at once.
   */
  const giveBack = async (
    { caller, route, key }: { caller: string; route: string; key: string },
    refused: boolean,
  ) => {
    const statement = refused
      ? sql`delete from idempotency_key`
      : sql`update idempotency_key set busy_until = app_now()`
    await sql`${statement} where caller = ${caller} and route = ${route} and key = ${key} and not answered`.execute(
      database.kysely,
    )
  }

  return {
    once: async <Result>(
      { caller, route, key, body }: { caller: string; route: string; key: string; body: string },
      work: (requestKey: string) => Promise<Result>,
    ): Promise<Result> => {
      if (key.length < 1 || key.length > 255) {
        throw new ProblemError({
          status: 400,
          code: 'invalid_request',
          detail: 'Idempotency-Key must be 1 to 255 characters long.',
        })
      }
      const bodyHash = createHash('sha256').update(body).digest('hex')
      const row = await claim(caller, route, key, bodyHash)
      if (row === undefined) throw common.request_in_progress()
      if (row.body_hash !== bodyHash) throw common.idempotency_key_reused()
      if (!row.claimed) {
        if (!row.answered) throw common.request_in_progress()
        return row.response as Result
      }
      try {
        const result = await work(row.request_key)
        await sql`
          update idempotency_key set answered = true, response = ${JSON.stringify(result ?? null)}::jsonb
          where caller = ${caller} and route = ${route} and key = ${key}`.execute(database.kysely)
        return result
      } catch (error) {
        await giveBack({ caller, route, key }, error instanceof ProblemError && error.status < 500)
        throw error
      }
    },
    purge: async () => {
      const gone = await sql`delete from idempotency_key where expires_at < app_now()`.execute(
        database.kysely,
      )
      return Number(gone.numAffectedRows ?? 0)
    },
  }
}
