import type { CustomTypesConfig } from 'pg'
import { types } from 'pg'

const INT8 = 20
const INT8_ARRAY = 1016
const DATE = 1082

/**
 * How columns become JavaScript: `bigint` is a number (it throws beyond 2^53-1 rather than lose a
 * unit of money), `numeric` stays text, `timestamptz` is a Date, `date` stays `YYYY-MM-DD` (a Date
 * would shift it by the machine's time zone), `jsonb` is parsed. Handed to each client, since the
 * driver's own table of parsers is shared by the whole process.
 */
export const columnTypes: CustomTypesConfig = {
  getTypeParser(oid: number, format?: 'text' | 'binary') {
    if (format === 'binary') return types.getTypeParser(oid, 'binary')
    if (oid === INT8) return parseBigint
    if (oid === INT8_ARRAY) return parseBigintArray
    if (oid === DATE) return (text: string) => text
    return types.getTypeParser(oid, 'text')
  },
}

function parseBigint(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value)) {
    throw new RangeError(`bigint ${text} does not fit a JavaScript number; select it as text`)
  }
  return value
}

/** `{1,NULL,2}`; arrays of arrays do not occur in our schemas. */
function parseBigintArray(text: string): (number | null)[] {
  if (text === '{}') return []
  return text
    .slice(1, -1)
    .split(',')
    .map((item) => (item === 'NULL' ? null : parseBigint(item)))
}
