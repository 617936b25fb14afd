/* Terminology:
 * - change: something that one transaction of ours does; its record commits with it
 * - deed: something that an operator does outside of a transaction of ours, such as a replay: its record is written
 *   before, and its outcome after it
 */

import type { AuditEntry, AuditFilter } from '@cloudphone/contracts/api/audit-api'
import type { Actor } from '@cloudphone/contracts/api/operator-api'
import type { Ids } from '@cloudphone/contracts/id'
import type { AuditVerb } from '@cloudphone/contracts/route'
import { type AnyTx, afterCommit, type Database } from '@cloudphone/db/database'
import type { Logger } from '@cloudphone/observe/log'
import { type RawBuilder, sql } from 'kysely'
import { forRecord } from './audit-redaction.ts'
import { renderProblem } from './problem.ts'
import { currentScope } from './request-scope.ts'

/** A change, as the domain tells it. Who did it, and by which request, is known from where it happens. */
export interface Change {
  readonly verb: AuditVerb
  /** The thing's id. */
  readonly target: string
  /** Whose thing it is; null for the platform's own. */
  readonly tenantId: string | null
  /** The thing as it was; absent where it was not there. Secrets in it are hidden, see `isSecretField`. */
  readonly before?: unknown
  readonly after?: unknown
  readonly reason?: string | undefined
  /** Where the request does not tell: who signed in, or which saga goes on (`system:<saga>`). */
  readonly actor?: string | undefined
  /** The same for the session. */
  readonly sessionId?: string | undefined
}

/** Takes down what is changed. */
export interface Audit {
  /** Puts a change on record, in its transaction: both are committed, or neither is. */
  add(tx: AnyTx, change: Change): Promise<void>
  /** Says that this request found done what it asks for, so that no record of it is missed. */
  nothingChanged(): void
}

/** A dead letter as the record of its replay keeps it. */
export interface ReplayedLetter {
  readonly id: string
  readonly eventId: string
  readonly error: string
  readonly attempts: number
  readonly diedAt: string
}

/** Which letters a replay was about: of many the first only. */
export interface ReplayDetails {
  readonly queue: string
  readonly letters: readonly ReplayedLetter[]
}

export interface Deed {
  readonly actor: Actor
  readonly verb: AuditVerb
  /** The saga, the dead letter, or the queue. */
  readonly target: string
  readonly reason: string | undefined
  /** The tenant whose thing it is; null for the platform's. */
  readonly tenantId: string | null
  readonly before?: unknown
  readonly details?: ReplayDetails
}

/** A replay that was recorded. */
export interface RecordedReplay {
  readonly at: Date
  readonly actor: string
  readonly reason: string | null
  readonly details: ReplayDetails
}

/** A place in a search: the page after this record's id. */
export interface AuditSearch extends AuditFilter {
  readonly limit: number
  readonly after: string | undefined
}

/** The audit log of one service. */
export interface AuditLog extends Audit {
  /**
   * Does `work` on the record: who, when, what and why are committed before it begins, what came of it afterwards.
   * `toldBy` puts the result into words.
   */
  record<Result>(
    deed: Deed,
    work: () => Promise<Result>,
    toldBy: (result: Result) => string | null,
  ): Promise<Result>
  /** The last replay that went through, or may have, with this letter in it. */
  replayOf(letterId: string): Promise<RecordedReplay | undefined>
  /** The replays of an event in a queue, oldest first. */
  replaysOf(event: { queue: string; eventId: string }): Promise<readonly RecordedReplay[]>
  /** Newest first. Without a tenant those of all, and the platform's. */
  search(wanted: AuditSearch): Promise<readonly OwnEntry[]>
  /** Deletes what is older than it is to be kept; returns how many. */
  purge(): Promise<number>
}

type OwnEntry = Omit<AuditEntry, 'service'>

const auditKeepDaysByDefault = 365

const longestText = 500
const purgeBatch = 5_000

/** Opens the log in the service's own schema. */
export function openAuditLog<Schema>(options: {
  database: Database<Schema>
  ids: Ids
  log: Logger
  /** The service: the actor of what happens outside of any request, loop or event. */
  name: string
  /** At least one. */
  keepDays?: number | undefined
}): AuditLog {
  const { database, ids, log, name, keepDays = auditKeepDaysByDefault } = options
  const db = database.kysely

  const begin = async (id: string, deed: Deed): Promise<void> => {
    const { actor, tenantId, verb, target, reason = null, before, details = {} } = deed
    const scope = currentScope()
    await sql`
      insert into audit_log (id, actor, tenant_id, verb, target, reason, details, state_before, request_id, session_id, address)
      values (${id}, ${actor.userId}, ${tenantId}, ${verb}, ${target}, ${reason}, ${json(details)}, ${json(forRecord(before))},
              ${scope?.requestId ?? null}, ${scope?.sessionId ?? null}, ${scope?.address ?? null})`.execute(
      db,
    )
    scope?.verbs.push(verb)
  }
  const end = async (id: string, outcome: AuditEntry['outcome'], detail: string | null): Promise<void> => {
    await sql`
      update audit_log set outcome = ${outcome}, detail = ${detail?.slice(0, longestText) ?? null},
        ended_at = now() -- audit
      where id = ${id} and outcome = 'unknown'`.execute(db)
  }
  const endSafely = async (id: string, outcome: 'done' | 'refused' | 'failed', detail: string | null) => {
    try {
      await end(id, outcome, detail)
    } catch (error) {
      // The deed stands, or its own error counts: the entry stays `unknown`, which is true.
      log.error({ event: 'audit.outcome_lost', auditId: id, outcome, err: error })
    }
  }

  return {
    add: async (tx, change) => {
      const scope = currentScope()
      const { verb, target, tenantId, before, after, reason } = change
      const actor = change.actor ?? scope?.actor ?? `system:${name}`
      await sql`
        insert into audit_log (id, actor, tenant_id, verb, target, reason, outcome, ended_at, state_before, state_after,
                               request_id, session_id, address)
        values (${ids.next<'audit'>()}, ${actor}, ${tenantId}, ${verb}, ${target}, ${reason?.slice(0, longestText) ?? null},
                'done', now() /* audit */, ${json(forRecord(before))}, ${json(forRecord(after))},
                ${scope?.requestId ?? null}, ${change.sessionId ?? scope?.sessionId ?? null}, ${scope?.address ?? null})
      `.execute(tx)
      if (scope !== undefined) afterCommit(tx, () => scope.verbs.push(verb))
    },
    nothingChanged: () => {
      const scope = currentScope()
      if (scope !== undefined) scope.nothingChanged = true
    },
    record: async (deed, work, toldBy) => {
      const id = ids.next<'audit'>()
      await begin(id, deed)
      let result: Awaited<ReturnType<typeof work>>
      try {
        result = await work()
      } catch (error) {
        const { status, document } = renderProblem(error, id)
        await endSafely(id, status < 500 ? 'refused' : 'failed', document.detail)
        throw error
      }
      await endSafely(id, 'done', toldBy(result))
      log.info({ event: 'operator.did', auditId: id, verb: deed.verb, target: deed.target })
      return result
    },
    replayOf: async (letterId) => {
      const { rows } = await sql<RecordedReplay>`
        select ${replayColumns} from audit_log
        where details @> ${JSON.stringify({ letters: [{ id: letterId }] })}::jsonb and outcome in ('done', 'unknown')
        order by id desc limit 1`.execute(db)
      return rows[0]
    },
    replaysOf: async ({ queue, eventId }) => {
      const { rows } = await sql<RecordedReplay>`
        select ${replayColumns} from audit_log
        where details @> ${JSON.stringify({ queue, letters: [{ eventId }] })}::jsonb and outcome in ('done', 'unknown')
        order by id limit 100`.execute(db)
      return rows
    },
    search: async (wanted) => {
      const { rows } = await sql<Omit<OwnEntry, 'at'> & { at: Date }>`
        select id, created_at as at, actor, verb, target, tenant_id as "tenantId", reason, outcome, detail,
          state_before as before, state_after as after,
          request_id as "requestId", session_id as "sessionId", address
        from audit_log where ${sql.join(conditions(wanted), sql` and `)}
        order by id desc limit ${wanted.limit}`.execute(db)
      return rows.map((row) => ({ ...row, at: row.at.toISOString() }))
    },
    purge: async () => {
      let gone = 0
      for (;;) {
        const count = await database.transaction(async (tx) => {
          await sql`select set_config('cloudphone.audit_purge', 'on', true)`.execute(tx)
          const deleted = await sql`
            delete from audit_log where id in (
              select id from audit_log where created_at < app_now() - make_interval(days => ${keepDays})
              order by created_at limit ${purgeBatch})`.execute(tx)
          return Number(deleted.numAffectedRows ?? 0)
        })
        gone += count
        if (count < purgeBatch) return gone
      }
    },
  }
}

const replayColumns = sql`created_at as at, actor, reason, details`

function json(value: unknown): RawBuilder<unknown> {
  return value === null ? sql`null` : sql`${JSON.stringify(value)}::jsonb`
}

/** What must hold of a record, each by an index of its own. */
function conditions(wanted: AuditSearch): RawBuilder<unknown>[] {
  const { actor, verb, target, tenantId, requestId, from, to, outcome, after } = wanted
  const all: (RawBuilder<unknown> | undefined)[] = [
    sql`true`,
    after === undefined ? undefined : sql`id < ${after}::uuid`,
    actor === undefined ? undefined : sql`actor = ${actor}`,
    verb === undefined ? undefined : sql`verb like ${`${verb.replaceAll(/[\\%_]/g, '\\$&')}%`}`,
    target === undefined ? undefined : sql`target = ${target}`,
    tenantId === undefined ? undefined : sql`tenant_id = ${tenantId}`,
    requestId === undefined ? undefined : sql`request_id = ${requestId}`,
    outcome === undefined ? undefined : sql`outcome = ${outcome}`,
    from === undefined
      ? undefined
      : sql`created_at >= ${from}::timestamptz and id >= ${idAt(from, -1)}::uuid`,
    to === undefined ? undefined : sql`created_at < ${to}::timestamptz and id < ${idAt(to, 1)}::uuid`,
  ]
  return all.filter((one) => one !== undefined)
}

const hourMs = 3_600_000

/**
 * The lowest UUIDv7 of a time some hours off: a search by time reads the ids' own index from there. An id is minted by a
 * process's clock while `created_at` is the database's, so there is an hour's room for their difference.
 */
function idAt(time: string, hours: number): string {
  const ms = Math.min(Math.max(Date.parse(time) + hours * hourMs, 0), 2 ** 48 - 1)
  const digits = ms.toString(16).padStart(12, '0')
  return `${digits.slice(0, 8)}-${digits.slice(8)}-0000-0000-000000000000`
}
