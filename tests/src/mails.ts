import { readdir, readFile } from 'node:fs/promises'
import { until } from './until.ts'

/** The token of the last mail to an address in a folder of mails, once there are as many. */
export function tokenMailed(folder: string, to: string, count = 1): Promise<string> {
  return until(`mail ${count} to ${to}`, async () => {
    const names = (await readdir(folder)).filter((name) => name.endsWith('.eml')).toSorted()
    const mails = await Promise.all(names.map((name) => readFile(`${folder}/${name}`, 'utf8')))
    const theirs = mails.filter((mail) => mail.includes(`To: ${to}`))
    if (theirs.length < count) return undefined
    const text = textOf(theirs.at(-1) ?? '')
    return /--token ([\w-]{43})/.exec(text)?.[1]
  })
}

/** The command in a mail is ASCII: only the encoding of its lines has to be undone. */
function textOf(mail: string): string {
  const body = mail.split('\r\n\r\n').slice(1).join('\r\n\r\n')
  if (/^Content-Transfer-Encoding: base64/im.test(mail)) return Buffer.from(body, 'base64').toString()
  return body.replaceAll('=\r\n', '')
}
