import type { Actor, AuditEntry, AuditVerb } from '@cloudphone/contracts/api/operator-api'
import type { Ids } from '@cloudphone/contracts/id'
import type { Database } from '@cloudphone/db/database'
import type { Logger } from '@cloudphone/observe/log'
import { sql } from 'kysely'
import { renderProblem } from './problem.ts'

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
  readonly details?: ReplayDetails
}

/** A replay that was recorded. */
export interface RecordedReplay {
  readonly at: Date
  readonly actor: string
  readonly reason: string | null
  readonly details: ReplayDetails
}

/** The record of what operators did by hand in one service. */
export interface OperatorAudit {
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
  /** Newest first: what was done to the tenant's things and to the platform's. */
  list(page: { tenantId: string; limit: number; after: string | undefined }): Promise<readonly OwnEntry[]>
  /** Deletes what is older than a year; returns how many. */
  purge(): Promise<number>
}

type OwnEntry = Omit<AuditEntry, 'service'>

const longestText = 500

/** Opens the record in the service's own schema. */
export function openOperatorAudit(options: {
  database: Database<unknown>
  ids: Ids
  log: Logger
}): OperatorAudit {
  const { database, ids, log } = options
  const db = database.kysely

  const begin = async (id: string, deed: Deed): Promise<void> => {
    const { actor, tenantId, verb, target, reason = null, details = {} } = deed
    await sql`
      insert into operator_audit (id, actor, tenant_id, verb, target, reason, details)
      values (${id}, ${actor.userId}, ${tenantId}, ${verb}, ${target}, ${reason}, ${JSON.stringify(details)}::jsonb)
    `.execute(db)
  }
  const end = async (id: string, outcome: AuditEntry['outcome'], detail: string | null): Promise<void> => {
    await sql`
      update operator_audit set outcome = ${outcome}, detail = ${detail?.slice(0, longestText) ?? null},
        ended_at = now() -- audit
      where id = ${id}`.execute(db)
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
        select ${replayColumns} from operator_audit
        where details @> ${JSON.stringify({ letters: [{ id: letterId }] })}::jsonb and outcome in ('done', 'unknown')
        order by id desc limit 1`.execute(db)
      return rows[0]
    },
    replaysOf: async ({ queue, eventId }) => {
      const { rows } = await sql<RecordedReplay>`
        select ${replayColumns} from operator_audit
        where details @> ${JSON.stringify({ queue, letters: [{ eventId }] })}::jsonb and outcome in ('done', 'unknown')
        order by id limit 100`.execute(db)
      return rows
    },
    list: async ({ tenantId, limit, after }) => {
      const { rows } = await sql<Omit<OwnEntry, 'at'> & { at: Date }>`
        select id, created_at as at, actor, verb, target, reason, outcome, detail from operator_audit
        where (tenant_id is null or tenant_id = ${tenantId})
          and ${after === undefined ? sql`true` : sql`id < ${after}::uuid`}
        order by id desc limit ${limit}`.execute(db)
      return rows.map((row) => ({ ...row, at: row.at.toISOString() }))
    },
    purge: async () => {
      const gone = await sql`
        delete from operator_audit where created_at < app_now() - interval '1 year'`.execute(db)
      return Number(gone.numAffectedRows ?? 0)
    },
  }
}

const replayColumns = sql`created_at as at, actor, reason, details`
