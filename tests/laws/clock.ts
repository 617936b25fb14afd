import { glob, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import ts from 'typescript'

/**
 * The laws about time that an import graph cannot see.
 *
 * - `wall-clock`: a decision (`domain/`) asks the injected clock, never the machine's: a test moves the one it gave.
 * - `dice`: nor does it throw dice or mint ids by itself: a seeded test must see the same run twice.
 * - `deadlines`: SQL compares and computes deadlines by `app_now()`, which is `now()` everywhere but in the test
 *   template, where it moves together with the test's clock. A deadline by bare `now()` stands still there, and its
 *   test passes or fails by the hour of the day.
 *
 * Bare `now()` is right where nobody decides by it: the columns created_at and updated_at, and any line that says
 * `audit`, or `real time` (lease and kill drills), in a comment of its own.
 */
export interface Trespass {
  law: 'wall-clock' | 'dice' | 'deadlines'
  path: string
  line: number
  /** The trespassing line as written, trimmed. */
  excerpt: string
}

export const CLOCK_LAWS = {
  'wall-clock': 'Decisions take their time from the injected clock, not from the machine.',
  dice: 'Decisions take chance and ids from outside, so that a seeded run can be repeated.',
  deadlines: 'Deadlines in SQL call app_now(); bare now() only in audit columns, or say why: /* audit */.',
} as const satisfies Record<Trespass['law'], string>

/** Where the kernel and the rooms keep SQL. Tests are free: they set up the time they want. */
const SQL_HOMES = /^(services\/[^/]+|packages\/(saga|outbox|bus|lease))\//
const DECISIONS = /^(services|packages)\/.*\/domain\//
const TEST_CODE = /\.(test|contract|bench)\.ts$/

const WALL_CLOCK_IN_SQL =
  /(?<![\w.])(?:(?:now|clock_timestamp|statement_timestamp|transaction_timestamp)\s*\(\s*\)|current_timestamp|localtimestamp)(?!\w)/gi
const AUDIT_COLUMN =
  /\b(?:created|updated)_at\s*(?:=|timestamptz\b[^,;=]*?\bdefault)\s*(?:now\s*\(\s*\)|current_timestamp)/gi
const ALLOWED = /(?:--|\/\*).*\b(?:audit|real time)\b/i

const WALL_CLOCK_CALLS = new Set([
  'Date',
  'Date.now',
  'performance.now',
  'process.hrtime',
  'process.hrtime.bigint',
])
const DICE_CALLS = new Set([
  'Math.random',
  'randomUUID',
  'crypto.randomUUID',
  'randomBytes',
  'crypto.randomBytes',
])

/** All trespasses under `root` (a directory laid out like this project), in order of path and line. */
export async function clockTrespasses(root: string): Promise<Trespass[]> {
  const found: Trespass[] = []
  const paths: string[] = []
  for await (const path of glob('{services,packages}/**/*.{ts,sql}', {
    cwd: root,
    exclude: (name) => name.split('/').includes('node_modules'),
  })) {
    paths.push(path.replaceAll('\\', '/'))
  }
  for (const path of paths.sort()) {
    if (!TEST_CODE.test(path)) found.push(...trespassesIn(path, await readFile(join(root, path), 'utf8')))
  }
  return found
}

function trespassesIn(path: string, text: string): Trespass[] {
  const lines = text.split('\n')
  const at = (law: Trespass['law'], line: number): Trespass => ({
    law,
    path,
    line,
    excerpt: lines[line - 1]?.trim() ?? '',
  })
  if (path.endsWith('.sql')) {
    return SQL_HOMES.test(path) ? bareNowLines(text).map((line) => at('deadlines', line)) : []
  }
  const source = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true)
  const found: Trespass[] = []
  const visit = (node: ts.Node): void => {
    const line = source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1
    if (SQL_HOMES.test(path)) {
      for (const offset of bareNowInLiteral(node)) found.push(at('deadlines', line + offset - 1))
    }
    const law = DECISIONS.test(path) ? worldlyCall(node) : undefined
    if (law) found.push(at(law, line))
    node.forEachChild(visit)
  }
  visit(source)
  return found
}

/** Lines (1-based) on which `sql` reads the wall clock outside audit columns, comments, and lines that say why. */
function bareNowLines(sql: string): number[] {
  const allowed = new Set(sql.split('\n').flatMap((line, index) => (ALLOWED.test(line) ? [index + 1] : [])))
  const blank = (match: string): string => match.replaceAll(/[^\n]/g, ' ')
  const bare = sql
    .replaceAll(/--[^\n]*/g, blank)
    .replaceAll(/\/\*[\s\S]*?\*\//g, blank)
    .replaceAll(AUDIT_COLUMN, blank)
  return [...bare.matchAll(WALL_CLOCK_IN_SQL)]
    .map((match) => bare.slice(0, match.index).split('\n').length)
    .filter((line) => !allowed.has(line))
}

/** Every piece of text in TypeScript may be SQL: tagged templates, strings handed to a query, and `fn('now')`. */
function bareNowInLiteral(node: ts.Node): number[] {
  if (ts.isCallExpression(node) && /(^|\.)fn$/.test(node.expression.getText())) {
    const name = node.arguments[0]
    return name && ts.isStringLiteralLike(name) && /^now$/i.test(name.text) ? [1] : []
  }
  // A template is read whole, with its expressions blanked, so that a comment on one of its lines counts for it.
  if (ts.isTemplateExpression(node)) {
    const start = node.getStart()
    let sql = node.getText()
    for (const { expression } of node.templateSpans) {
      const from = expression.getStart() - start
      const to = expression.getEnd() - start
      sql = sql.slice(0, from) + sql.slice(from, to).replaceAll(/[^\n]/g, 'x') + sql.slice(to)
    }
    return bareNowLines(sql)
  }
  if (ts.isNoSubstitutionTemplateLiteral(node)) return bareNowLines(node.getText())
  // Plain strings are mostly prose; only one that starts like a statement is taken for SQL.
  if (ts.isStringLiteral(node) && /^\s*(select|insert|update|delete|with|create|alter)\b/i.test(node.text)) {
    return bareNowLines(node.text)
  }
  return []
}

/** The law that this expression breaks inside a decision, if any. */
function worldlyCall(node: ts.Node): 'wall-clock' | 'dice' | undefined {
  if (ts.isNewExpression(node)) {
    return node.expression.getText() === 'Date' && !node.arguments?.length ? 'wall-clock' : undefined
  }
  if (!ts.isCallExpression(node)) return undefined
  const callee = node.expression.getText().replace(/^globalThis\./, '')
  if (WALL_CLOCK_CALLS.has(callee)) return 'wall-clock'
  return DICE_CALLS.has(callee) ? 'dice' : undefined
}
