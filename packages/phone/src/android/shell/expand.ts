import type { ArithmeticExpression, ParameterExpansionPart, ParsedScript, Word, WordPart } from 'unbash'
import type { PhoneFs } from '../android.ts'

/** Longest word or list of words a command may get, as Linux limits arguments (MAX_ARG_STRLEN). */
export const MAX_WORD_BYTES = 128 * 1024
const MAX_MATCHES = 4096

/** What expanding words needs from the shell. */
export interface Expander {
  readonly fs: PhoneFs
  readonly cwd: string
  variable(name: string): string | undefined
  assign(name: string, value: string): void
  /** The output of a command substitution, without the line ends at its end. */
  substitute(script: ParsedScript): Promise<string>
  arithmetic(expression: ArithmeticExpression): Promise<number>
}

/** A syntax that this shell understands but does not carry out, or a limit: the command fails with these words. */
export class ExpansionError extends Error {
  override readonly name = 'ExpansionError'
}

/** A piece of an expanded word: quoted text is neither split nor matched against file names. */
interface Piece {
  readonly text: string
  readonly quoted: boolean
  /** The result of an unquoted expansion: split at white space. */
  readonly split: boolean
}

/** Words to arguments: expansions, splitting, file name patterns, quote removal. */
export async function expandWords(words: readonly Word[], shell: Expander): Promise<string[]> {
  const fields: string[] = []
  for (const word of words) {
    for (const field of splitFields(await piecesOf(word, shell))) {
      fields.push(...(await matchNames(field, shell)))
    }
    if (fields.length > MAX_MATCHES) throw new ExpansionError('Argument list too long')
  }
  return fields
}

/** A word that stays one: assignments, redirection targets, patterns. */
export async function expandText(word: Word, shell: Expander): Promise<string> {
  const text = (await piecesOf(word, shell)).map((piece) => piece.text).join('')
  if (text.length > MAX_WORD_BYTES) throw new ExpansionError('Argument list too long')
  return text
}

async function piecesOf(word: Word, shell: Expander): Promise<Piece[]> {
  if (word.parts === undefined) {
    // Without parts the lexer has removed escapes already; a pattern stands only if it was not escaped.
    const quoted = word.text !== word.value
    return [{ text: word.value, quoted, split: false }]
  }
  const pieces: Piece[] = []
  let size = 0
  for (const part of word.parts) {
    for (const piece of await piecesOfPart(part, shell)) {
      size += piece.text.length
      if (size > MAX_WORD_BYTES) throw new ExpansionError('Argument list too long')
      pieces.push(piece)
    }
  }
  return pieces
}

async function piecesOfPart(part: WordPart, shell: Expander): Promise<Piece[]> {
  switch (part.type) {
    case 'Literal':
      return [{ text: part.value, quoted: part.text !== part.value, split: false }]
    case 'SingleQuoted':
    case 'AnsiCQuoted':
      return [{ text: part.value, quoted: true, split: false }]
    case 'DoubleQuoted':
    case 'LocaleString': {
      const inner: string[] = []
      for (const child of part.parts) inner.push(await textOfPart(child, shell))
      return [{ text: inner.join(''), quoted: true, split: false }]
    }
    default:
      return [{ text: await textOfPart(part, shell), quoted: false, split: true }]
  }
}

async function textOfPart(part: WordPart, shell: Expander): Promise<string> {
  switch (part.type) {
    case 'Literal':
      return part.value
    case 'SimpleExpansion':
      return shell.variable(part.text.slice(1)) ?? ''
    case 'ParameterExpansion':
      return await parameter(part, shell)
    case 'CommandExpansion':
      return part.script === undefined ? '' : await shell.substitute(part.script)
    case 'ArithmeticExpansion':
      return part.expression === undefined ? '0' : String(await shell.arithmetic(part.expression))
    case 'BraceExpansion':
    case 'ExtendedGlob':
      return part.text
    default:
      throw new ExpansionError(`${part.text}: not supported by this shell`)
  }
}

async function parameter(part: ParameterExpansionPart, shell: Expander): Promise<string> {
  if (part.index !== undefined || part.indirect || part.slice !== undefined || part.replace !== undefined)
    throw new ExpansionError(`${part.text}: not supported by this shell`)
  const value = shell.variable(part.parameter)
  if (part.length) return String((value ?? '').length)
  const { operator } = part
  if (operator === undefined) return value ?? ''
  const operand = part.operand === undefined ? '' : await expandText(part.operand, shell)
  const missing = operator.startsWith(':') ? value === undefined || value === '' : value === undefined
  switch (operator.replace(/^:/, '')) {
    case '-':
      return missing ? operand : (value ?? '')
    case '+':
      return missing ? '' : operand
    case '=':
      if (missing) shell.assign(part.parameter, operand)
      return missing ? operand : (value ?? '')
    case '?':
      if (missing) throw new ExpansionError(`${part.parameter}: ${operand || 'parameter null or not set'}`)
      return value ?? ''
    default:
      return strip(value ?? '', operator, operand)
  }
}

function strip(value: string, operator: string, pattern: string): string {
  const source = patternSource(pattern)
  if (operator === '#' || operator === '##') {
    const lengths = range(value.length)
    const found = (operator === '##' ? lengths.reverse() : lengths).find((n) =>
      new RegExp(`^${source}$`, 's').test(value.slice(0, n)),
    )
    return found === undefined ? value : value.slice(found)
  }
  if (operator === '%' || operator === '%%') {
    const starts = range(value.length)
    const found = (operator === '%' ? starts.reverse() : starts).find((n) =>
      new RegExp(`^${source}$`, 's').test(value.slice(n)),
    )
    return found === undefined ? value : value.slice(0, found)
  }
  throw new ExpansionError(`\${${operator}}: not supported by this shell`)
}

function range(length: number): number[] {
  // Each length is one regular expression: bounded, since a value can have 128 KiB.
  if (length > 4096) throw new ExpansionError('Value too long for a pattern')
  return Array.from({ length: length + 1 }, (_, i) => i)
}

function splitFields(pieces: readonly Piece[]): Piece[][] {
  const fields: Piece[][] = []
  let current: Piece[] | undefined
  for (const piece of pieces) {
    if (!piece.split) {
      current ??= []
      current.push(piece)
      continue
    }
    const parts = piece.text.split(/[ \t\n]+/)
    parts.forEach((text, i) => {
      if (i > 0 && current !== undefined) {
        fields.push(current)
        current = undefined
      }
      if (text === '') return
      current ??= []
      current.push({ text, quoted: false, split: false })
    })
  }
  if (current !== undefined) fields.push(current)
  return fields
}

async function matchNames(field: readonly Piece[], shell: Expander): Promise<string[]> {
  const text = field.map((piece) => piece.text).join('')
  if (!field.some((piece) => !piece.quoted && /[*?[]/.test(piece.text))) return [text]
  const pattern = field
    .map((piece) => (piece.quoted ? piece.text.replace(/[*?[\\]/g, '\\$&') : piece.text))
    .join('')
  const matches = await glob(pattern, shell)
  return matches.length === 0 ? [text] : matches
}

async function glob(pattern: string, shell: Expander): Promise<string[]> {
  let found = [pattern.startsWith('/') ? '/' : '']
  for (const part of pattern.split('/').filter(Boolean)) {
    const next: string[] = []
    const matcher = new RegExp(`^${patternSource(part)}$`, 's')
    for (const base of found) {
      if (next.length > MAX_MATCHES) break
      const dir = base.startsWith('/') ? base : `${shell.cwd}/${base}`
      if (!/[*?[]/.test(part.replace(/\\./g, ''))) {
        const path = base + part.replace(/\\(.)/g, '$1')
        const real = path.startsWith('/') ? path : `${shell.cwd}/${path}`
        if (await exists(shell.fs, real)) next.push(`${path}/`)
        continue
      }
      for (const { name } of await listOrNothing(shell.fs, dir)) {
        if ((!name.startsWith('.') || part.startsWith('.')) && matcher.test(name))
          next.push(`${base}${name}/`)
      }
    }
    found = next
  }
  return found.map((path) => path.replace(/\/$/, '')).sort()
}

async function exists(fs: PhoneFs, path: string): Promise<boolean> {
  return await fs.lstat(path).then(
    (stat) => stat !== undefined,
    () => false,
  )
}

async function listOrNothing(fs: PhoneFs, path: string): Promise<readonly { name: string }[]> {
  // A pattern over a directory that is closed or not there matches nothing; the shell says so by keeping the pattern.
  return await fs.list(path).catch(() => [])
}

/** A shell pattern as the source of a regular expression without nested repetition, so it cannot run away. */
export function patternSource(pattern: string): string {
  let source = ''
  for (let i = 0; i < pattern.length; i += 1) {
    const char = pattern.charAt(i)
    if (char === '*') {
      while (pattern.charAt(i + 1) === '*') i += 1
      source += '.*'
    } else if (char === '?') source += '.'
    else if (char === '\\' && i + 1 < pattern.length) {
      i += 1
      source += escapeRegExp(pattern.charAt(i))
    } else if (char === '[') {
      const end = pattern.indexOf(']', i + 2)
      if (end < 0) source += '\\['
      else {
        const body = pattern.slice(i + 1, end).replace(/[\\\]]/g, '\\$&')
        const negated = body.startsWith('!') || body.startsWith('^')
        source += isClass(body) ? `[${negated ? '^' : ''}${negated ? body.slice(1) : body}]` : '(?!)'
        i = end
      }
    } else source += escapeRegExp(char)
  }
  return source
}

function isClass(body: string): boolean {
  try {
    new RegExp(`[${body}]`)
    return true
  } catch {
    // An inverted range such as [z-a] matches nothing.
    return false
  }
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')
}
