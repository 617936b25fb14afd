import { type Kysely, sql } from 'kysely'
import type { UsersSchema } from './schema.ts'

/** How many wrong attempts are free, and what the next ones cost. */
export interface FailureLimit {
  readonly free: number
  /** The pause after the last free one; it doubles with each more. */
  readonly firstPauseSeconds: number
  readonly longestPauseSeconds: number
}

/** After how long without one all wrong attempts are forgotten. */
const forgetHours = 24

/** How many seconds the longest lock of these subjects holds on; undefined when none does. */
export async function lockedSeconds(
  db: Kysely<UsersSchema>,
  subjects: readonly string[],
): Promise<number | undefined> {
  const found = await sql<{ seconds: number | null }>`
    select ceil(max(extract(epoch from locked_until - app_now())))::int as seconds
    from sign_in_failures where subject = any(${subjects}) and locked_until > app_now()`.execute(db)
  return found.rows[0]?.seconds ?? undefined
}

/**
 * Counts a wrong attempt; false, without counting, while the subject is locked. One statement: of many attempts at the
 * same moment no more are let through than the limit leaves.
 */
export async function countFailure(
  tx: Kysely<UsersSchema>,
  subject: string,
  limit: FailureLimit,
): Promise<boolean> {
  const failures = sql`case when known.last_at < app_now() - make_interval(hours => ${forgetHours}::int) then 1
    else known.failures + 1 end`
  const counted = await sql`
    insert into sign_in_failures as known (subject, failures, last_at)
    values (${subject}, 1, app_now())
    on conflict (subject) do update
    set failures = ${failures}, last_at = app_now(),
        locked_until = case when ${failures} >= ${limit.free}::int then app_now() + make_interval(
          secs => least(${limit.firstPauseSeconds}::float8 * power(2, least(${failures} - ${limit.free}::int, 20)),
                        ${limit.longestPauseSeconds}::float8)) end
    where known.locked_until is null or known.locked_until <= app_now()`.execute(tx)
  return counted.numAffectedRows === 1n
}

/** Forgets the wrong attempts of a subject. */
export async function forgetFailures(db: Kysely<UsersSchema>, subject: string): Promise<void> {
  await sql`delete from sign_in_failures where subject = ${subject}`.execute(db)
}

/** Forgets what counts no more; returns how many subjects. */
export async function purgeFailures(db: Kysely<UsersSchema>): Promise<number> {
  const purged = await sql`
    delete from sign_in_failures
    where last_at < app_now() - make_interval(hours => ${forgetHours}::int)
      and (locked_until is null or locked_until < app_now())`.execute(db)
  return Number(purged.numAffectedRows ?? 0)
}
