/* The audit log as text: JSON lines, and CSV (RFC 4180) for spreadsheets. */
import type { AuditEntry } from '@cloudphone/contracts/api/audit-api'

const columns = [
  ...['at', 'service', 'actor', 'verb', 'target', 'tenantId', 'outcome', 'reason', 'detail'],
  ...['before', 'after', 'requestId', 'sessionId', 'address', 'id'],
] as const satisfies readonly (keyof AuditEntry)[]

/** A JSON document a line. */
export async function* ndjsonOf(pages: AsyncIterable<readonly AuditEntry[]>): AsyncIterable<string> {
  for await (const page of pages) yield page.map((entry) => `${JSON.stringify(entry)}\n`).join('')
}

/** A line of names, then a line a record; `before` and `after` are JSON in a cell. */
export async function* csvOf(pages: AsyncIterable<readonly AuditEntry[]>): AsyncIterable<string> {
  yield `${columns.join(',')}\r\n`
  for await (const page of pages) {
    yield page.map((entry) => `${columns.map((name) => cell(entry[name])).join(',')}\r\n`).join('')
  }
}

/**
 * A cell that no spreadsheet takes for a formula, whoever has written its text.
 * @see https://owasp.org/www-community/attacks/CSV_Injection
 */
function cell(value: unknown): string {
  if (value === null || value === undefined) return ''
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  const harmless = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless
}
