import { type Kysely, sql } from 'kysely'
import type { UsersSchema } from './schema.ts'

export type MailKind = 'password_reset' | 'email_verification' | 'invitation' | 'registration'

/** A mail that is to be sent: what it is about, and to whom; its text is made when it is. */
export interface DueMail {
  readonly id: string
  readonly kind: MailKind
  readonly email: string
  /** With the one that begins now. */
  readonly attempts: number
}

/** Puts a mail down to be sent. */
export async function insertMail(
  tx: Kysely<UsersSchema>,
  mail: { id: string; kind: MailKind; email: string },
): Promise<void> {
  await sql`insert into mails (id, kind, email) values (${mail.id}, ${mail.kind}, ${mail.email})`.execute(tx)
}

/**
 * Takes mails that are due. Each is due again after a pause that doubles, unless it is deleted before: who dies while
 * sending leaves it to the next turn.
 */
export async function takeDueMails(
  db: Kysely<UsersSchema>,
  {
    limit,
    firstPauseSeconds,
    longestPauseSeconds,
  }: {
    limit: number
    firstPauseSeconds: number
    longestPauseSeconds: number
  },
): Promise<DueMail[]> {
  const taken = await sql<DueMail>`
    update mails
    set attempts = attempts + 1,
        next_at = app_now() + make_interval(
          secs => least(${firstPauseSeconds} * power(2, least(attempts, 20)), ${longestPauseSeconds}))
    where id in (
      select id from mails where failed_at is null and next_at <= app_now()
      order by next_at limit ${limit} for update skip locked
    )
    returning id, kind, email, attempts`.execute(db)
  return taken.rows
}

/** Forgets a mail: it was sent, or nobody is to have it. */
export async function deleteMail(db: Kysely<UsersSchema>, id: string): Promise<void> {
  await sql`delete from mails where id = ${id}`.execute(db)
}

/** Notes why a mail was not sent. */
export async function noteMailError(db: Kysely<UsersSchema>, id: string, error: string): Promise<void> {
  await sql`update mails set last_error = ${error.slice(0, 500)} where id = ${id}`.execute(db)
}

/** Gives a mail up. */
export async function failMail(db: Kysely<UsersSchema>, id: string, error: string): Promise<void> {
  await sql`
    update mails set failed_at = app_now(), last_error = ${error.slice(0, 500)} where id = ${id}`.execute(db)
}

/** Forgets mails that were given up a week ago; returns how many. */
export async function purgeMails(db: Kysely<UsersSchema>): Promise<number> {
  const purged = await sql`
    delete from mails where failed_at < app_now() - make_interval(days => 7)`.execute(db)
  return Number(purged.numAffectedRows ?? 0)
}
