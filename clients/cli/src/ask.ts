import { createInterface } from 'node:readline/promises'
import { Writable } from 'node:stream'

/** Asks on the terminal; what is typed to a hidden question is not shown. */
export async function ask(question: string, echo: 'shown' | 'hidden' = 'shown'): Promise<string> {
  if (!process.stdin.isTTY)
    throw new Error(`${question.replace(/: $/, '')} is missing and there is no terminal to ask on`)
  // Shown by readline itself where it echoes: it clears the line that it begins on.
  if (echo === 'hidden') process.stderr.write(question)
  const muted = new Writable({ write: (_chunk, _encoding, done) => done() })
  const lines = createInterface({
    input: process.stdin,
    output: echo === 'hidden' ? muted : process.stderr,
    terminal: true,
  })
  try {
    return await lines.question(echo === 'hidden' ? '' : question)
  } finally {
    lines.close()
    if (echo === 'hidden') process.stderr.write('\n')
  }
}

/**
 * Asks whether to go on, where somebody sits who can answer; a script is not asked, nor who said `--yes`.
 * @throws Error when the answer is no.
 */
export async function confirm(question: string, { yes }: { yes?: true | undefined }): Promise<void> {
  if (yes || !process.stdin.isTTY || !process.stderr.isTTY) return
  const answer = await ask(`${question} [y/N] `)
  if (!/^y(es)?$/i.test(answer.trim())) throw new Error('not done: the answer was no')
}
