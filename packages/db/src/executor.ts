import type { Clock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import { type RawBuilder, sql } from 'kysely'
import { v7 as uuidv7 } from 'uuid'
import { openSession } from './session.ts'
import type { DatabaseTarget } from './target.ts'

/*
 * Terminology:
 * - executor: a process (more exactly: one `holdExecutor`) that claims rows and works on them.
 * - identity: the id under which it claims. Each lives exactly as long as one connection, which holds a
 *   session advisory lock on it. When the process dies its socket closes, the lock goes, and whatever it
 *   had claimed is claimable at once. A frozen or partitioned process keeps its socket: for those, leases
 *   have their time to live.
 */

export interface ExecutorIdentity {
  /** UUIDv7, new for every connection: claims under an older id are void. */
  readonly id: string
  /** Aborts when the connection behind this identity is lost: stop working on what was claimed under it. */
  readonly lost: AbortSignal
}

export interface ExecutorOptions {
  /** The server itself (`Database.directUrl`): a pooler would hand the lock to others. */
  url: DatabaseTarget
  applicationName: string
  log: Logger
  clock?: Clock
  newId?: () => string
}

export interface Executor extends AsyncDisposable {
  /** The identity held now; null while the database cannot be reached. Claim nothing without one. */
  readonly current: ExecutorIdentity | null
  /** Resolves with the identity as soon as one is held. */
  held(): Promise<ExecutorIdentity>
  /** Gives the identity up: all it claimed is claimable by others. */
  close(): Promise<void>
}

// Seeds the hash, so that our keys do not meet those of other users of advisory locks.
const KEY_SEED = 7_021_937_043

/** Holds an executor identity, and takes a new one after every lost connection. */
export function holdExecutor(options: ExecutorOptions): Executor {
  const newId = options.newId ?? uuidv7
  let identity: ExecutorIdentity | null = null
  const session = openSession({
    ...options,
    async onConnect(client, lost) {
      const id = newId()
      // The server notices a vanished peer within about 15 s (no effect on unix sockets, none needed).
      await client.query(
        'set tcp_keepalives_idle = 5; set tcp_keepalives_interval = 3; set tcp_keepalives_count = 3',
      )
      const { rows } = await client.query<{ held: boolean }>(
        `select pg_try_advisory_lock(hashtextextended($1, ${KEY_SEED})) as held`,
        [id],
      )
      if (rows[0]?.held !== true) throw new Error(`Executor id ${id} is already held by another session`)
      const held = { id, lost }
      identity = held
      lost.addEventListener('abort', () => {
        if (identity === held) identity = null
      })
      options.log.debug({ event: 'db.executor_held', executorId: id })
    },
  })
  return {
    get current() {
      return identity
    },
    async held() {
      for (;;) {
        await session.connected()
        if (identity !== null) return identity
      }
    },
    async close() {
      identity = null
      await session.close()
    },
    [Symbol.asyncDispose]() {
      return this.close()
    },
  }
}

/**
 * SQL, true when the executor with this id is connected to *this database*: `pg_locks` shows the advisory
 * locks of the whole cluster, but a lock's key counts per database, so an executor is alive only for
 * rows of the database its `url` names. Works for every role. Reads the lock table once per evaluation
 * (some 50 us plus its size): in a claim over many rows join `liveExecutorKeys()` instead.
 */
export function isExecutorAlive(executorId: RawBuilder<string> | string): RawBuilder<boolean> {
  return sql<boolean>`(${executorKey(executorId)} in (select key from ${liveExecutorKeys()} as live))`
}

/** SQL, the lock key (bigint) of an executor id, itself an SQL expression or a value. */
export function executorKey(executorId: RawBuilder<string> | string): RawBuilder<number> {
  return sql<number>`hashtextextended(${executorId}::text, ${sql.lit(KEY_SEED)})`
}

/**
 * SQL, a parenthesised subquery with one column `key`: those of all executors alive in this database.
 * `with live as materialized (select key from ${liveExecutorKeys()} as l) ...`
 */
export function liveExecutorKeys(): RawBuilder<unknown> {
  // A bigint advisory lock appears with its high half as classid, its low half as objid, objsubid 1
  // (PostgreSQL manual, pg_locks).
  return sql`(select (l.classid::bigint << 32) | l.objid::bigint as key
    from pg_locks l
    where l.locktype = 'advisory' and l.granted and l.objsubid = 1
      and l.database = (select d.oid from pg_database d where d.datname = current_database()))`
}
