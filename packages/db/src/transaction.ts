import type { QueryExecutorProvider, Transaction } from 'kysely'

const HOOKS: unique symbol = Symbol('cloudphone.transaction')

/** What a running transaction carries beside its connection. */
export interface TxHooks {
  readonly [HOOKS]: AfterCommit[]
}

type AfterCommit = () => void

/** A running transaction over the tables of `Schema`. Only `Database.transaction` makes one. */
export type Tx<Schema> = Transaction<Schema> & TxHooks

/**
 * A running transaction, whatever its schema: what kernel functions such as `outbox.add(tx, ...)` take.
 * Run SQL on it with Kysely's `sql\`...\`.execute(tx)`. A `Kysely`, a pool or a plain Kysely
 * `Transaction` does not fit: the effect would escape the caller's commit, or its after-commit hooks.
 */
export type AnyTx = QueryExecutorProvider & TxHooks

/**
 * Runs `callback` once `tx` has committed; never when it rolls back or is tried again (the new try
 * registers its own). Callbacks run in order, synchronously, and must not throw: they are for hints,
 * such as a wake-up, whose loss a poll repairs (a crash right after the commit loses them).
 */
export function afterCommit(tx: AnyTx, callback: AfterCommit): void {
  tx[HOOKS].push(callback)
}

/** Makes a Kysely transaction a `Tx`. */
export function withHooks<Schema>(transaction: Transaction<Schema>, hooks: AfterCommit[]): Tx<Schema> {
  return Object.assign(transaction, { [HOOKS]: hooks })
}
