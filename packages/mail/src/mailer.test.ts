import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { SMTPServer } from 'smtp-server'
import { afterEach, describe, expect, it } from 'vitest'
import { openFolderMailer } from './folder-mailer.ts'
import { contractSender as from, type MailRoom, mailerContract } from './mailer.contract.ts'
import { openSmtpMailer } from './smtp-mailer.ts'

const closers: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const close of closers.splice(0)) await close()
})

async function folderRoom(): Promise<MailRoom & { folder: string }> {
  const base = await mkdtemp(join(tmpdir(), 'cloudphone-mail-'))
  closers.push(() => rm(base, { recursive: true, force: true }))
  const folder = join(base, 'mail')
  return {
    folder,
    mailer: await openFolderMailer({ folder, from }),
    received: async () =>
      Promise.all((await readdir(folder)).map((name) => readFile(join(folder, name), 'utf8'))),
    breakDown: () => rm(folder, { recursive: true }),
  }
}

/** A real SMTP server; who is `nobody@example.com` is refused for good, and `busy@example.com` for now. */
async function smtpRoom(): Promise<MailRoom> {
  const messages: string[] = []
  const server = new SMTPServer({
    authOptional: true,
    disabledCommands: ['STARTTLS'],
    onRcptTo: ({ address }, _session, done) => {
      const code = { 'nobody@example.com': 550, 'busy@example.com': 450 }[address]
      done(code === undefined ? null : Object.assign(new Error('no'), { responseCode: code }))
    },
    onData: (stream, _session, done) => {
      void text(stream).then((message) => {
        messages.push(message)
        done()
      }, done)
    },
  })
  const listening = server.listen(0, '127.0.0.1')
  await once(listening, 'listening')
  const address = listening.address()
  const port = typeof address === 'object' ? address?.port : undefined
  const close = () => new Promise<void>((resolve) => server.close(resolve))
  closers.push(close)
  const mailer = openSmtpMailer({ url: `smtp://127.0.0.1:${port}`, from })
  closers.unshift(() => mailer.close())
  return { mailer, received: async () => messages, breakDown: close }
}

describe('mails into a folder', () => {
  mailerContract(folderRoom)

  it('lets no other account read them, and keeps one that is sent twice once', async () => {
    const { mailer, folder } = await folderRoom()
    const mail = { id: 'one', to: 'a@example.com', subject: 'Hi', text: 'Hi' }
    await mailer.send(mail)
    await mailer.send(mail)
    expect(await readdir(folder)).toEqual(['one.eml'])
    expect((await stat(folder)).mode & 0o777).toBe(0o700)
    expect((await stat(join(folder, 'one.eml'))).mode & 0o777).toBe(0o600)
  })
})

describe('mails over SMTP', () => {
  mailerContract(smtpRoom)

  it.each([
    ['nobody@example.com', true],
    ['busy@example.com', false],
  ])('knows whether %s is refused for good', async (to, permanent) => {
    const { mailer } = await smtpRoom()
    await expect(mailer.send({ id: 'one', to, subject: 'Hi', text: 'Hi' })).rejects.toMatchObject({
      permanent,
    })
  })
})
