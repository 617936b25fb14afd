/* The model database as a process sees it over a network: each statement is a request and a reply, and either can be
 * late, lost or too late. */
import { DatabaseUnavailable, isConflict } from '@cloudphone/db/errors'
import type { SagaRow } from '../row.ts'
import type { SagaStore } from '../store.ts'
import type { ModelDatabase, ModelTx, NewSaga } from './model-store.ts'
import type { Scheduler, TaskFault } from './scheduler.ts'
import type { VirtualProcess } from './virtual-process.ts'

export interface RemoteStore extends SagaStore<ModelTx> {
  /** A statement of the service's own in `tx`. */
  statement(tx: ModelTx, label: string, execute: () => void): Promise<void>
  /** As `insertSaga`: undefined when the saga is there already. */
  start(
    saga: NewSaga,
    hold: { executorId: string; leaseTtlMs: number } | undefined,
  ): Promise<SagaRow | undefined>
}

interface Request<Result> {
  readonly label: string
  readonly execute: () => Result
  /** The row whose lock it needs. */
  readonly sagaId?: string | undefined
  readonly tx?: ModelTx | undefined
  readonly isCommit?: boolean
}

const CONFLICT_RETRIES = 5
const CONFLICT_BACKOFF_MS = 5
const ALONE: readonly TaskFault[] = ['request lost', 'request timed out']
const IN_TRANSACTION: readonly TaskFault[] = ['request lost', 'serialization failure']
const REPLY: readonly TaskFault[] = ['reply lost']

export function remoteStore({
  process,
  database,
  scheduler,
}: {
  process: VirtualProcess
  database: ModelDatabase
  scheduler: Scheduler
}): RemoteStore {
  const { name } = process

  const answer = (label: string, faults: readonly TaskFault[], run: (fault?: TaskFault) => void): void =>
    scheduler.add({ label: `${name} <- ${label}`, kind: 'store_reply', place: process, faults, run })

  /** A cut connection takes its transaction along. */
  const cut = (tx: ModelTx | undefined): void => {
    if (tx?.isOpen === true) database.rollback(tx)
  }

  const ask = <Result>(request: Request<Result>): Promise<Result> =>
    new Promise((resolve, reject) => {
      const { label, execute, sagaId, tx, isCommit } = request
      const fail = (error: Error): void => answer(`${label}: ${error.message}`, [], () => reject(error))
      const run = (fault?: TaskFault): void => {
        const isCut = tx?.isOpen === false || scheduler.nowMs < process.cutOffUntilMs
        const error = errorOf(fault) ?? (isCut ? new DatabaseUnavailable('no connection') : undefined)
        if (error !== undefined) {
          cut(tx)
          // Nobody waits for it any more, and yet it comes.
          if (fault === 'request timed out') scheduler.add({ ...task, faults: [], run: () => void execute() })
          fail(error)
          return
        }
        const result = execute()
        answer(label, REPLY, (lost) => {
          if (lost !== undefined && isCommit !== true) cut(tx)
          if (lost === undefined) resolve(result)
          else reject(new DatabaseUnavailable('Connection terminated'))
        })
      }
      const task = {
        label: `${name} -> ${label}`,
        kind: 'store_request',
        place: null,
        faults: tx === undefined ? ALONE : IN_TRANSACTION,
        isReady: () => sagaId === undefined || !database.isLocked(sagaId, tx),
        run,
      } as const
      scheduler.add(task)
    })

  const begin = async (): Promise<ModelTx> => {
    const tx = await ask({
      label: 'begin',
      execute: () => {
        const begun = database.begin()
        process.transactions.set(begun, 'open')
        if (process.isDead) cut(begun)
        return begun
      },
    })
    return tx
  }

  const attempt = async <Result>(work: (tx: ModelTx) => Promise<Result>): Promise<Result> => {
    const tx = await begin()
    try {
      const result = await work(tx)
      process.transactions.set(tx, 'committing')
      await ask({ label: 'commit', execute: () => database.commit(tx), tx, isCommit: true })
      return result
    } catch (error) {
      if (tx.isOpen) {
        await ask({ label: 'rollback', execute: () => cut(tx) }).catch(() => cut(tx))
      }
      throw error
    } finally {
      process.transactions.delete(tx)
    }
  }

  return {
    claimFree: (options) => ask({ label: 'claim free', execute: () => database.claim('free', options) }),
    claimAny: (options) => ask({ label: 'claim any', execute: () => database.claim('any', options) }),
    nextDueInMs: (known) => ask({ label: 'next due', execute: () => database.nextDueInMs(known) }),
    renew: (leases) =>
      ask({ label: `renew ${leases.sagaIds.join(' ')}`, execute: () => database.renew(leases) }),
    forgive: (executorIds) =>
      ask({ label: `forgive ${executorIds.join(' ')}`, execute: () => database.forgive(executorIds) }),
    giveBack: (lease) =>
      ask({
        label: `give back ${lease.sagaId} #${lease.fence}`,
        sagaId: lease.sagaId,
        execute: () => database.giveBack(lease),
      }),
    readHeld: (lease) => ask({ label: `read ${lease.sagaId}`, execute: () => database.readHeld(lease) }),
    checkpoint: (point) =>
      ask({
        label: `checkpoint ${describePoint(point)}`,
        sagaId: point.row.sagaId,
        execute: () => database.checkpoint(point),
      }),
    checkpointIn: (tx, point) =>
      ask({
        label: `checkpoint ${describePoint(point)}`,
        sagaId: point.row.sagaId,
        tx,
        execute: () => database.checkpoint(point, tx),
      }),
    start: (saga, hold) => ask({ label: `start ${saga.sagaId}`, execute: () => database.start(saga, hold) }),
    statement: (tx, label, execute) => ask({ label, tx, execute }),
    async transaction(work) {
      for (let retry = 0; ; retry += 1) {
        try {
          return await attempt(work)
        } catch (error) {
          if (!isConflict(error) || retry >= CONFLICT_RETRIES) throw error
          await process.clock.sleep(CONFLICT_BACKOFF_MS * 2 ** retry)
        }
      }
    },
  }
}

/** What the caller is told when its request met this. */
function errorOf(fault: TaskFault | undefined): Error | undefined {
  if (fault === 'request lost') return new DatabaseUnavailable('connection reset')
  if (fault === 'request timed out') return new DatabaseUnavailable('timeout expired')
  if (fault !== 'serialization failure') return undefined
  return Object.assign(new Error('could not serialize access'), { code: '40001' })
}

function describePoint({ row, decision }: Parameters<SagaStore<ModelTx>['checkpoint']>[0]): string {
  const { entry, to, next } = decision
  const what = entry === null ? 'nothing' : `${entry.step}.${entry.direction} ${entry.status}`
  return `${row.sagaId} #${row.fence} v${row.version}: ${what} => ${to.status}, ${next.kind}`
}
