/* Terminology:
 * - dedicated device: has an owner (`user_id`), who uses it without an allocation
 * - pooled device: has no owner; whoever holds its active allocation uses it
 * - holder: the user of the active allocation of a pooled device
 * - fence: a number that rises with each change of holder; what carries a lower one is refused
 * - generation: which start of the phone a row speaks of, as the provider counts them
 */
import { createHash } from 'node:crypto'
import type { DeviceStatus } from '@cloudphone/contracts/device'
import type { AllocationId, DeviceId, TenantId, UserId } from '@cloudphone/contracts/id'

/** Every legal move of a device: from which statuses to which. There is no other. */
export const moves = {
  boot: { from: ['CREATING'], to: 'RUNNING' },
  start: { from: ['STOPPED', 'ERROR'], to: 'RUNNING' },
  stop: { from: ['RUNNING', 'ERROR'], to: 'STOPPED' },
  fail: { from: ['RUNNING'], to: 'ERROR' },
  lose: { from: ['STOPPED'], to: 'ERROR' },
  delete: { from: ['RUNNING', 'STOPPED', 'ERROR', 'MAINTENANCE'], to: 'DELETING' },
} as const satisfies Record<string, { from: readonly DeviceStatus[]; to: DeviceStatus }>
export type Move = keyof typeof moves

/** Statuses in which a phone may be wiped; it passes STOPPED on its way. */
export const resettable: readonly DeviceStatus[] = ['RUNNING', 'STOPPED', 'ERROR']

/** What a decision about access looks at. */
export interface Held {
  readonly tenant_id: TenantId
  readonly user_id: UserId | null
  readonly holder_user_id: UserId | null
  readonly allocation_id: AllocationId | null
}

/** Who asks: `any` is the right to touch every device of the tenant. */
export interface Asker {
  readonly userId: UserId
  readonly tenantId: TenantId
  readonly any: boolean
}

export type Access = 'granted' | 'hidden' | 'not_yours' | 'not_allocated'

/** May this user use this device now? Other tenants' devices do not exist for him. */
export function accessOf(device: Held, asker: Asker): Access {
  if (device.tenant_id !== asker.tenantId) return 'hidden'
  if (asker.any) return 'granted'
  if (device.user_id !== null) return device.user_id === asker.userId ? 'granted' : 'not_yours'
  return device.holder_user_id === asker.userId && device.allocation_id !== null ? 'granted' : 'not_allocated'
}

/**
 * A stable UUID (version 8, RFC 9562 section 5.8) made of what names a request for ever: the same request, tried again
 * after a crash, means the same thing.
 */
export function idOfRequest(kind: string, requestKey: string): string {
  const hex = createHash('sha256').update(`cloudphone:${kind}:${requestKey}`).digest('hex')
  const variant = ((Number.parseInt(hex.slice(16, 18), 16) & 0x3f) | 0x80).toString(16)
  const parts = [hex.slice(0, 8), hex.slice(8, 12), `8${hex.slice(13, 16)}`]
  return [...parts, `${variant}${hex.slice(18, 20)}`, hex.slice(20, 32)].join('-')
}

/** `cloudphone-<slug of the name>-<device id>`: readable in a list of containers, unique by the id. */
export function containerName(name: string, deviceId: DeviceId): string {
  const slug = name
    .normalize('NFKD')
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .slice(0, 40)
    .replaceAll(/^-+|-+$/g, '')
  return `cloudphone-${slug === '' ? 'phone' : slug}-${deviceId}`
}

/** Whole seconds between two instants, never below 0. */
export function wholeSeconds(from: Date | null, to: Date): number {
  return from === null ? 0 : Math.max(0, Math.floor((to.getTime() - from.getTime()) / 1000))
}

/** Waits before the nth restart: the base, then four times as long each time, ten minutes at most. */
export function restartDelayMs(attempt: number, baseMs: number): number {
  return Math.min(baseMs * 4 ** Math.max(0, attempt - 1), 600_000)
}
