import { expect, it } from 'vitest'
import { MailError, type Mailer } from './mailer.ts'

/** A mailer under test, and what has come out at its other end: whole messages. */
export interface MailRoom {
  readonly mailer: Mailer
  received(): Promise<readonly string[]>
  /** From now on the other end takes nothing. */
  breakDown(): Promise<void>
}

export const contractSender = 'Cloudphone <no-reply@phones.example>'

/** What every mailer must do, whoever carries the mail. */
export function mailerContract(open: () => Promise<MailRoom>): void {
  const mail = {
    id: '0198a3c2-0000-7000-8000-000000000001',
    to: 'mei@example.com',
    subject: 'Reset your password / 重置密码',
    text: 'A link:\nhttps://phones.example/reset?token=abc\n.\n重置密码\n',
  }

  it('delivers subject and text as they are, in two alphabets', async () => {
    const room = await open()
    await room.mailer.send(mail)
    const [message, ...others] = await room.received()
    expect(others).toEqual([])
    expect(message).toMatch(/^To: mei@example\.com\r?$/m)
    expect(message).toMatch(/^From: Cloudphone <no-reply@phones\.example>\r?$/m)
    expect(message).toMatch(/^Message-ID: <0198a3c2-0000-7000-8000-000000000001@phones\.example>\r?$/m)
    expect(subjectOf(message ?? '')).toBe(mail.subject)
    expect(textOf(message ?? '')).toBe(mail.text)
  })

  it('lets nobody add a header by a line break in subject or address', async () => {
    const room = await open()
    await room.mailer
      .send({
        ...mail,
        subject: 'Hello\r\nBcc: eve@example.com',
        to: 'mei@example.com\r\nCc: eve@example.com',
      })
      .catch((error: unknown) => expect(error).toBeInstanceOf(MailError))
    for (const message of await room.received()) {
      expect(message).not.toMatch(/^(Bcc|Cc):/im)
    }
  })

  it('says so when the mail was not taken over, and that it may be later', async () => {
    const room = await open()
    await room.breakDown()
    await expect(room.mailer.send(mail)).rejects.toMatchObject({ name: 'MailError', permanent: false })
  })
}

/** Undoes the encoded words (RFC 2047) of a message's subject. */
function subjectOf(message: string): string {
  const [, raw = ''] = /^Subject: ((?:.*)(?:\r?\n[ \t].*)*)/m.exec(message) ?? []
  return raw
    .replaceAll(/\?=\s+=\?/g, '?==?')
    .replaceAll(/=\?utf-8\?([bq])\?(.*?)\?=/gi, (_whole, kind: string, text: string) =>
      kind.toLowerCase() === 'b'
        ? Buffer.from(text, 'base64').toString()
        : quotedPrintable(text.replaceAll('_', ' ')),
    )
}

function textOf(message: string): string {
  const [head = '', ...rest] = message.split(/\r?\n\r?\n/)
  const body = rest.join('\n\n').replaceAll('\r\n', '\n')
  return /^Content-Transfer-Encoding: base64/im.test(head)
    ? Buffer.from(body, 'base64').toString()
    : quotedPrintable(body.replaceAll('=\n', ''))
}

function quotedPrintable(text: string): string {
  const bytes = text.replaceAll(/=([0-9A-F]{2})/g, (_whole, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  )
  return Buffer.from(bytes, 'latin1').toString()
}
