/* Terminology:
 * - mail: a plain text to one person
 * - mailer: the port to whoever carries it; at least once, since who died before the receipt tries again
 */

/** A mail as it is to be sent. */
export interface Mail {
  /** Names the mail for ever: the Message-ID is made from it, so that a mail program shows a repetition once. */
  readonly id: string
  readonly to: string
  readonly subject: string
  readonly text: string
}

/** Takes mails over. */
export interface Mailer {
  /**
   * Resolves when the next hop has taken the mail over.
   * @throws MailError when it has not, or nobody knows.
   */
  send(mail: Mail): Promise<void>
  close(): Promise<void>
}

/** A mail that was not taken over. `permanent`: the receiver said that it never will be (a 5xx reply, RFC 5321). */
export class MailError extends Error {
  readonly permanent: boolean

  constructor(message: string, options: { permanent: boolean; cause?: unknown }) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'MailError'
    this.permanent = options.permanent
  }
}

/** The Message-ID of a mail (RFC 5322, section 3.6.4), at the domain of its sender. */
export function messageIdOf(mail: Mail, from: string): string {
  const domain = /@([\w.-]+)>?\s*$/.exec(from)?.[1] ?? 'cloudphone.invalid'
  return `<${mail.id}@${domain}>`
}
