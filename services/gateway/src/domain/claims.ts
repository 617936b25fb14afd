/* What only a join over services can judge. A claim is what one service says about a thing that another one keeps too:
 *
 * - `quota`, by device id: users says `reserved` or `committed` of each live reservation; devices names each device row
 *   that holds quota, with its status. Every named device needs a committed reservation, but for those that a saga is
 *   making or removing: that saga ends (invariant 8). Every committed reservation needs its device; one that is only
 *   reserved may stand alone, since its time runs out.
 * - `allocation`, by device id, with the allocation's id as detail: scheduler names each ACTIVE allocation, devices each
 *   held phone. Both must name the same.
 * - `session`, by reservation id: users says `reserved` or `committed`; scheduler names the session of each live allocation,
 *   with the allocation's status. An ACTIVE one needs a committed session, a committed session its live allocation.
 */
import type { Claim } from '@cloudphone/contracts/api/platform-api'
import type { DeviceStatus } from '@cloudphone/contracts/device'

/** Something that two services see differently. */
export interface Mismatch {
  readonly id: string
  readonly detail: string
}

/** A saga holds these: it reserves, commits and releases at its own pace. */
const underWay: ReadonlySet<string> = new Set<DeviceStatus>(['CREATING', 'DELETING'])

/** Compares what users and devices say about quota. */
export function quotaMismatches(users: readonly Claim[], devices: readonly Claim[]): Mismatch[] {
  const reservations = ofKind('quota', users)
  const holders = ofKind('quota', devices)
  const wrong: Mismatch[] = []
  for (const [id, status] of holders) {
    if (underWay.has(status)) continue
    const state = reservations.get(id)
    if (state === undefined) wrong.push({ id, detail: `device ${status} holds quota that nobody reserved` })
    else if (state === 'reserved') {
      wrong.push({ id, detail: `device ${status} holds quota that was never committed` })
    }
  }
  for (const [id, state] of reservations) {
    if (state === 'committed' && !holders.has(id)) {
      wrong.push({ id, detail: 'quota is committed for a device that does not exist' })
    }
  }
  return wrong
}

/** Compares what scheduler and devices say about who holds which phone. */
export function allocationMismatches(scheduler: readonly Claim[], devices: readonly Claim[]): Mismatch[] {
  const active = ofKind('allocation', scheduler)
  const held = ofKind('allocation', devices)
  const ids = new Set([...active.keys(), ...held.keys()])
  return [...ids]
    .filter((id) => active.get(id) !== held.get(id))
    .map((id) => ({
      id,
      detail: `ACTIVE at the scheduler: ${active.get(id) ?? 'none'}; held at the phone: ${held.get(id) ?? 'none'}`,
    }))
}

/** Compares the sessions that the users service counts with those that live allocations hold. */
export function sessionMismatches(users: readonly Claim[], scheduler: readonly Claim[]): Mismatch[] {
  const reservations = ofKind('session', users)
  const holders = ofKind('session', scheduler)
  const wrong: Mismatch[] = []
  for (const [id, status] of holders) {
    const state = reservations.get(id) ?? 'unknown'
    if (status === 'ACTIVE' && state !== 'committed') {
      wrong.push({ id, detail: `an ACTIVE allocation holds a session that is ${state}` })
    }
  }
  for (const [id, state] of reservations) {
    if (state === 'committed' && !holders.has(id)) {
      wrong.push({ id, detail: 'a session is committed for an allocation that has ended' })
    }
  }
  return wrong
}

/** Of two looks some time apart, what stood wrong in both in the same way: the rest was only on its way. */
export function stillWrong(first: readonly Mismatch[], second: readonly Mismatch[]): Mismatch[] {
  const before = new Set(first.map(({ id, detail }) => `${id} ${detail}`))
  return second.filter(({ id, detail }) => before.has(`${id} ${detail}`))
}

function ofKind(kind: string, claims: readonly Claim[]): ReadonlyMap<string, string> {
  return new Map(claims.filter((claim) => claim.kind === kind).map(({ id, detail }) => [id, detail]))
}
