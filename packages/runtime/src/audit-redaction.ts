/* What of a thing goes into the audit log: no secret, and a bounded size. */

/** What stands in the place of a secret. */
export const hidden = '[hidden]'

/** Words that make a field a secret, wherever in its name they stand. */
const secretWords = new Set([
  ...['password', 'passwd', 'passphrase', 'secret', 'token', 'tokens', 'hash', 'salt', 'otp', 'totp', 'pin'],
  ...['authorization', 'cookie', 'credential', 'credentials', 'recovery', 'jwt', 'signature', 'verifier'],
])
/** What a field is about, rather than its value: `tokenId` and `passwordChangedAt` are no secrets. */
const harmlessEnds = new Set([...['id', 'ids', 'at', 'epoch', 'count', 'seconds', 'days', 'type', 'kind']])
/** Keys that everybody may know. */
const openKeys = new Set(['public', 'business', 'request', 'idempotency', 'foreign', 'primary'])
/** Values that are secrets whatever their field is called: our API keys, and JSON Web Tokens. */
const secretValue = /\bcpk_[\w-]{16,}|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+|-----BEGIN [A-Z ]*PRIVATE KEY-----/

const mostFields = 60
const mostItems = 60
const longestText = 500
const deepest = 5
/** Of the whole as JSON. */
const mostBytes = 8_192

/** True for the name of a field whose value must not be on record. */
export function isSecretField(name: string): boolean {
  const words = name
    .replaceAll(/([a-z\d])([A-Z])/g, '$1_$2')
    .toLowerCase()
    .split(/[^a-z\d]+/)
    .filter((word) => word !== '')
  const last = words.at(-1) ?? ''
  if (harmlessEnds.has(last)) return false
  if (last === 'key' || last === 'keys') return !openKeys.has(words.at(-2) ?? '')
  return words.some((word) => secretWords.has(word))
}

/**
 * A thing as JSON for the record: secrets replaced, long texts and lists cut, at most 8 KiB. Undefined becomes null; what
 * JSON cannot say (a function, a symbol) is left out.
 */
export function forRecord(thing: unknown): unknown {
  const kept = reduced(thing, 0) ?? null
  return Buffer.byteLength(JSON.stringify(kept)) <= mostBytes
    ? kept
    : { tooLarge: true, begins: briefly(kept) }
}

function reduced(value: unknown, depth: number): unknown {
  switch (typeof value) {
    case 'string':
      return secretValue.test(value) ? hidden : cut(value)
    case 'number':
    case 'boolean':
      return value
    case 'bigint':
      return String(value)
    case 'object':
      return value === null ? null : reducedObject(value, depth)
    default:
      return undefined
  }
}

function reducedObject(value: object, depth: number): unknown {
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString()
  if (value instanceof Uint8Array) return `[${value.byteLength} bytes]`
  if (depth >= deepest) return '[deeper]'
  if (Array.isArray(value)) {
    const items = value.slice(0, mostItems).map((one) => reduced(one, depth + 1) ?? null)
    return value.length > mostItems ? [...items, `[${value.length - mostItems} more]`] : items
  }
  const fields = Object.entries(value)
  const kept = fields.slice(0, mostFields).flatMap(([name, field]): [string, unknown][] => {
    const shown =
      isSecretField(name) && field !== null && field !== undefined ? hidden : reduced(field, depth + 1)
    return shown === undefined ? [] : [[cut(name), shown]]
  })
  if (fields.length > mostFields) kept.push(['more', fields.length - mostFields])
  return Object.fromEntries(kept)
}

/** PostgreSQL's JSON knows neither NUL nor half a surrogate pair. */
function cut(text: string): string {
  const clean = text.toWellFormed().replaceAll('\0', '\uFFFD')
  return clean.length <= longestText ? clean : `${clean.slice(0, longestText).toWellFormed()}…`
}

function briefly(kept: unknown): string {
  return JSON.stringify(kept).slice(0, 1_000).toWellFormed()
}
