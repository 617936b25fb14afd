import { common, ProblemError } from './problem.ts'

/** A place in a list that is sorted by id: the id of the last item shown. */
function encodeCursor(lastId: string): string {
  return Buffer.from(lastId).toString('base64url')
}

/** @throws ProblemError `invalid_request` when the cursor is not one of ours. */
export function decodeCursor(cursor: string | undefined): string | undefined {
  return decode(cursor, /^[\w-]{1,120}$/)
}

/** As `decodeCursor`, of a list whose ids are UUIDs. */
export function decodeIdCursor(cursor: string | undefined): string | undefined {
  return decode(cursor, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
}

function decode(cursor: string | undefined, shape: RegExp): string | undefined {
  if (cursor === undefined) return undefined
  const id = Buffer.from(cursor, 'base64url').toString()
  if (shape.test(id)) return id
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
  idOf: (row: Row) => string,
): { items: Item[]; nextCursor: string | null } {
  const shown = rows.slice(0, limit)
  const last = shown.at(-1)
  return {
    items: shown.map(view),
    nextCursor: rows.length > limit && last !== undefined ? encodeCursor(idOf(last)) : null,
  }
}
