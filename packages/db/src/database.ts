import { type Clock, systemClock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import {
  type IsolationLevel,
  Kysely,
  type PostgresCursor,
  PostgresDialect,
  type PostgresPool,
  type PostgresQueryResult,
} from 'kysely'
import pg from 'pg'
import { isConflict, translated } from './errors.ts'
import { type StatementNames, statementNames } from './prepared.ts'
import { type SilenceWatch, watchSilence } from './silence.ts'
import { clientConfig, type DatabaseTarget } from './target.ts'
import { type Tx, withHooks } from './transaction.ts'

export { type AnyTx, afterCommit, type Tx } from './transaction.ts'

export interface DatabaseOptions {
  url: DatabaseTarget
  /** The server itself, when `url` leads to a pooler: LISTEN and advisory locks need a session of their own. */
  directUrl?: DatabaseTarget | undefined
  /** The schema that unqualified names mean. */
  schema: string
  /** Most connections at a time. */
  poolSize: number
  /** Shown in `pg_stat_activity`. */
  applicationName: string
  log: Logger
  clock?: Clock
  /**
   * A query without an answer for so long is asked after, see silence.ts. Default 5 s; never behind a pooler, whose
   * backends are not ours.
   */
  silentAfterMs?: number
}

export interface TransactionOptions {
  isolation?: IsolationLevel
  /**
   * `prepared`: what comes again on a connection is planned once, see prepared.ts. For work that runs the same few
   * statements thousands of times. Default `plain`. Behind a pooler all are plain: it may know no names.
   */
  statements?: 'plain' | 'prepared'
}

export interface Database<Schema> extends AsyncDisposable {
  /** For reads and single statements; every connection error is a `DatabaseUnavailable`. */
  readonly kysely: Kysely<Schema>
  /** As `kysely`, for the few statements that come very often: each connection plans them once (see prepared.ts). */
  readonly prepared: Kysely<Schema>
  readonly pool: pg.Pool
  readonly schema: string
  readonly url: DatabaseTarget
  /** Where sessions (LISTEN, advisory locks, migrations) connect: `directUrl`, or `url` without a pooler. */
  readonly directUrl: DatabaseTarget
  /**
   * Runs `work` in one transaction and commits it when `work` resolves. After a serialization failure or
   * a deadlock `work` runs again, five times at most, so it must have no effect outside of `tx`.
   * Throws `DatabaseUnavailable` when the connection is lost; the commit may then have happened or not.
   */
  transaction<Result>(
    work: (tx: Tx<Schema>) => Promise<Result>,
    options?: TransactionOptions,
  ): Promise<Result>
  /** Waits for running queries, then closes the pool. Safe to call twice. */
  close(): Promise<void>
}

const MAX_CONFLICT_RETRIES = 5
// Doubles at each retry: time for the winner, whom the loser's rollback has only just woken.
const CONFLICT_BACKOFF_MS = 5
// A process that freezes inside a transaction would hold its row locks for ever.
const IDLE_IN_TRANSACTION_TIMEOUT_MS = 60_000

/** Opens a pool on one service's schema. Connects on the first query. */
export function openDatabase<Schema>(options: DatabaseOptions): Database<Schema> {
  const { url, log, schema, silentAfterMs } = options
  const clock = options.clock ?? systemClock
  const pool = openPool(options)
  const isPooled = options.directUrl !== undefined && options.directUrl !== url
  const watch = isPooled
    ? undefined
    : watchSilence({ ...options, ...(silentAfterMs && { suspectAfterMs: silentAfterMs }) })
  const overPool = (names?: () => StatementNames) =>
    new Kysely<Schema>({ dialect: new PostgresDialect({ pool: translatingPool(pool, { watch, names }) }) })
  const kysely = overPool()
  const preparing = isPooled ? kysely : overPool(statementNames)
  let closing: Promise<void> | undefined

  const attempt = async <Result>(
    work: (tx: Tx<Schema>) => Promise<Result>,
    { isolation, statements = 'plain' }: TransactionOptions,
  ): Promise<Result> => {
    const hooks: (() => void)[] = []
    const builder = (statements === 'prepared' ? preparing : kysely).transaction()
    const result = await (isolation === undefined ? builder : builder.setIsolationLevel(isolation)).execute(
      (transaction) => work(withHooks(transaction, hooks)),
    )
    for (const hook of hooks) {
      try {
        hook()
      } catch (error) {
        // The commit stands: a broken hint must not make its caller believe otherwise.
        log.error({ event: 'db.after_commit_failed', err: error, schema })
      }
    }
    return result
  }

  const close = async (): Promise<void> => {
    await kysely.destroy()
    // Kysely ends the pool only if it ever ran a query.
    if (!pool.ended) await pool.end()
    watch?.close()
  }

  return {
    kysely,
    prepared: preparing,
    pool,
    schema,
    url,
    directUrl: options.directUrl ?? url,
    async transaction(work, how = {}) {
      for (let retry = 0; ; retry += 1) {
        try {
          return await attempt(work, how)
        } catch (error) {
          if (!isConflict(error) || retry >= MAX_CONFLICT_RETRIES) throw translated(error)
          log.debug({ event: 'db.transaction_retried', err: error, schema, retry: retry + 1 })
          await clock.sleep(CONFLICT_BACKOFF_MS * 2 ** retry)
        }
      }
    },
    close() {
      closing ??= close()
      return closing
    },
    [Symbol.asyncDispose]() {
      return this.close()
    },
  }
}

function openPool({ url, directUrl, schema, poolSize, applicationName, log }: DatabaseOptions): pg.Pool {
  if (!/^[a-z_][a-z0-9_]*$/.test(schema)) {
    throw new Error(`Database schema "${schema}": only a-z, 0-9 and _ are allowed`)
  }
  const pool = new pg.Pool({
    ...clientConfig(url, applicationName),
    max: poolSize,
    idleTimeoutMillis: 30_000,
    // Poolers refuse start-up options; behind one the role's own search_path (see provision) has to do.
    ...(directUrl === undefined || directUrl === url
      ? {
          options: `-c search_path=${schema} -c idle_in_transaction_session_timeout=${IDLE_IN_TRANSACTION_TIMEOUT_MS}`,
        }
      : {}),
  })
  // A broken connection is an event, which ends the process when nobody listens: on the pool while it is
  // idle, on the connection itself while it is checked out between two queries (the next one fails).
  pool.on('error', (error) => log.warn({ event: 'db.idle_connection_lost', err: error, schema }))
  pool.on('connect', (client) => {
    client.on('error', (error) => log.debug({ event: 'db.connection_lost', err: error, schema }))
  })
  return pool
}

interface Translation {
  readonly watch: SilenceWatch | undefined
  readonly names: (() => StatementNames) | undefined
}

/**
 * Kysely's view of the pool: the same connections, whose broken and silent ones raise `DatabaseUnavailable`, and whose
 * statements have names if `names` are given.
 */
function translatingPool(pool: pg.Pool, { watch, names }: Translation): PostgresPool {
  // One wrapper per connection, since Kysely keeps what it knows of a connection by its identity.
  const wrappers = new WeakMap<pg.PoolClient, PooledClient>()
  return {
    Client: pg.Client,
    options: pool.options,
    end: () => pool.end(),
    async connect() {
      const take = () =>
        pool.connect().catch((error: unknown) => {
          throw translated(error)
        })
      let client = await take()
      while (watch?.isDoubtful(client)) {
        client.release(true)
        client = await take()
      }
      let wrapper = wrappers.get(client)
      if (wrapper === undefined) {
        wrapper = translatingClient(client, { watch, names: names?.() })
        wrappers.set(client, wrapper)
      }
      return wrapper
    },
  }
}

/** A commit that the server made a rollback, since a statement before it had failed and nobody had let that be known. */
class SwallowedError extends Error {
  override readonly name = 'SwallowedError'
  constructor() {
    super('Nothing was committed: a statement of the transaction failed, and its error was swallowed')
  }
}

type PooledClient = Awaited<ReturnType<PostgresPool['connect']>>

interface NamingClient {
  query<Row>(statement: { name: string; text: string; values: unknown[] }): Promise<PostgresQueryResult<Row>>
}

function translatingClient(
  client: pg.PoolClient,
  { watch, names }: { watch: SilenceWatch | undefined; names: StatementNames | undefined },
): PooledClient {
  const plain: PooledClient = client
  const named: NamingClient = client
  function query<Row>(sql: string, parameters: readonly unknown[]): Promise<PostgresQueryResult<Row>>
  function query<Row>(cursor: PostgresCursor<Row>): PostgresCursor<Row>
  function query<Row>(what: string | PostgresCursor<Row>, parameters: readonly unknown[] = []) {
    if (typeof what !== 'string') return plain.query(what)
    const name = names?.nameOf(what)
    const answered = watch?.begin(client)
    const answer =
      name === undefined
        ? plain.query<Row>(what, parameters)
        : named.query<Row>({ name, text: what, values: [...parameters] })
    return answer.then(
      (result) => {
        answered?.()
        if (what === 'commit' && `${result.command}` === 'ROLLBACK') throw new SwallowedError()
        return result
      },
      (error: unknown) => {
        answered?.()
        names?.failed(what, error)
        throw translated(error)
      },
    )
  }
  return {
    query,
    release: (destroy) => client.release(destroy),
    ...(plain.processID === undefined ? {} : { processID: plain.processID }),
  }
}
