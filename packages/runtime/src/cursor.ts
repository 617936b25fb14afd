import { common, ProblemError } from './problem.ts'

/** A place in a list: the key by which it is sorted, of the last item shown. */
function encodeCursor(lastKey: string): string {
  return Buffer.from(lastKey).toString('base64url')
}

/** The id (a UUID) that a cursor names. @throws ProblemError `invalid_request` when the cursor is not one of ours. */
export function decodeCursor(cursor: string | undefined): string | undefined {
  return decodeCursorOf(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, cursor)?.[0]
}

/** As `decodeCursor`, of a list that is paged by order of arrival. */
export function decodeOrdinalCursor(cursor: string | undefined): number | undefined {
  const ordinal = decodeCursorOf(/^\d{1,15}$/, cursor)?.[0]
  return ordinal === undefined ? undefined : Number(ordinal)
}

/** As `decodeCursor`, of a list with a key of its own `shape`, which is anchored at both ends; answers its match. */
export function decodeCursorOf(shape: RegExp, cursor: string | undefined): RegExpExecArray | undefined {
  if (cursor === undefined) return undefined
  const found = shape.exec(Buffer.from(cursor, 'base64url').toString())
  if (found !== null) return found
  throw new ProblemError({
    status: 400,
    code: 'invalid_request',
    detail: `${common.invalid_request().message} query.cursor: not a cursor of this list`,
  })
}

/** Makes a page of rows fetched with `limit + 1`: the extra row only tells that there is a next page. */
export function pageOf<Row, Item>(
  rows: readonly Row[],
  limit: number,
  view: (row: Row) => Item,
  keyOf: (row: Row) => string,
): { items: Item[]; nextCursor: string | null } {
  const shown = rows.slice(0, limit)
  const last = shown.at(-1)
  return {
    items: shown.map(view),
    nextCursor: rows.length > limit && last !== undefined ? encodeCursor(keyOf(last)) : null,
  }
}
