import { createTransport } from 'nodemailer'
import { MailError, type Mailer, messageIdOf } from './mailer.ts'

const patienceMs = 20_000

/**
 * Hands mails to an SMTP server. `url`: `smtp://user:password@host:587` (STARTTLS when the server offers it, and always
 * with `?requireTLS=true`) or `smtps://...` (TLS from the start).
 */
export function openSmtpMailer({ url, from }: { url: string; from: string }): Mailer {
  const transport = createTransport({
    url,
    ...{ connectionTimeout: patienceMs, greetingTimeout: patienceMs, socketTimeout: patienceMs },
    // A mail is text of ours: it never reads a file or a URL.
    ...{ disableFileAccess: true, disableUrlAccess: true },
  })
  return {
    send: async (mail) => {
      try {
        await transport.sendMail({
          ...{ from, to: mail.to, subject: mail.subject, text: mail.text },
          messageId: messageIdOf(mail, from),
        })
      } catch (cause) {
        throw new MailError('the mail server did not take the mail', { permanent: isPermanent(cause), cause })
      }
    },
    close: async () => transport.close(),
  }
}

/** Only a refusal of this receiver is for ever: one of our account or of the sender is a setting that will be mended. */
function isPermanent(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const { responseCode, command } = error as Error & { responseCode?: unknown; command?: unknown }
  return typeof responseCode === 'number' && responseCode >= 500 && command === 'RCPT TO'
}
