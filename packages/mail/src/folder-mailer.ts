import { randomBytes } from 'node:crypto'
import { mkdir, open, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { createTransport } from 'nodemailer'
import { MailError, type Mailer, messageIdOf } from './mailer.ts'

/**
 * Puts mails into a folder as `<id>.eml` (RFC 5322), readable by this account only: where no mail server is set, the
 * operator reads them there. A mail that is sent again replaces itself.
 */
export async function openFolderMailer({ folder, from }: { folder: string; from: string }): Promise<Mailer> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const composer = createTransport({ streamTransport: true, buffer: true, newline: 'windows' })
  return {
    send: async (mail) => {
      if (!/^[\w-]{1,100}$/.test(mail.id)) {
        throw new MailError('the id of a mail names a file', { permanent: true })
      }
      const { message } = await composer.sendMail({
        ...{ from, to: mail.to, subject: mail.subject, text: mail.text },
        messageId: messageIdOf(mail, from),
      })
      await writeWhole(join(folder, `${mail.id}.eml`), message as Buffer).catch((cause: unknown) => {
        throw new MailError(`the folder of mails cannot be written: ${folder}`, { permanent: false, cause })
      })
    },
    close: async () => composer.close(),
  }
}

/** Written beside and renamed, so that nobody reads half a mail. */
async function writeWhole(path: string, bytes: Uint8Array): Promise<void> {
  const draft = `${path}.${randomBytes(4).toString('hex')}`
  const handle = await open(draft, 'wx', 0o600)
  try {
    await handle.writeFile(bytes)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(draft, path)
}
