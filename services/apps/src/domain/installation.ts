/* Terminology:
 * - installation: the wish of a user that an app be put on a phone, and what became of it
 * - live: not ended yet; `installing` begins when the devices service fetches the bytes for it
 */
import type { Installation } from '@cloudphone/contracts/api/apps-api'

type Status = Installation['status']

/** The only moves there are. An end is for good: who waited for it was told. */
export const moves = {
  begin: { from: ['pending'], to: 'installing' },
  complete: { from: ['pending', 'installing'], to: 'installed' },
  fail: { from: ['pending', 'installing'], to: 'failed' },
} as const satisfies Record<string, { from: readonly Status[]; to: Status }>

export const liveStatuses: readonly Status[] = ['pending', 'installing']

export function isLive({ status }: { status: Status }): boolean {
  return liveStatuses.includes(status)
}
