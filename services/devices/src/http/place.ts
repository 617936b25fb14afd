import { decodeCursor } from '@cloudphone/runtime/cursor'
import { common } from '@cloudphone/runtime/problem'

/** The place in a list that a cursor names; lists of this service are paged by order of arrival. */
export function placeOf(cursor: string | undefined): number | undefined {
  const place = decodeCursor(cursor)
  if (place === undefined) return undefined
  if (!/^\d{1,15}$/.test(place)) throw common.invalid_request()
  return Number(place)
}
