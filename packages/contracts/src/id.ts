import { v7 as uuidv7 } from 'uuid'
import { z } from 'zod'

/** A UUIDv7 that names one kind of thing; the brand keeps a device's id out of a user's place. */
export type Id<Kind extends string> = string & { readonly __kind: Kind }

export type UserId = Id<'user'>
export type TenantId = Id<'tenant'>
export type DeviceId = Id<'device'>
export type AllocationId = Id<'allocation'>
export type AppId = Id<'app'>
export type InstallationId = Id<'installation'>
export type NodeId = Id<'node'>

/** A lower-case UUID of any version, branded. Upper-case input is folded, so that one thing has one spelling. */
function idSchema<Kind extends string>(kind: Kind) {
  return z
    .guid(`must be the UUID of a ${kind}`)
    .transform((value) => value.toLowerCase() as Id<Kind>)
    .meta({ description: `The UUID of a ${kind}.` })
}

export const UserId = idSchema('user')
export const TenantId = idSchema('tenant')
export const DeviceId = idSchema('device')
export const AllocationId = idSchema('allocation')
export const AppId = idSchema('app')
export const InstallationId = idSchema('installation')
export const NodeId = idSchema('node')

/** Mints ids. Injected, so that tests can make them predictable. */
export interface Ids {
  /** A new UUIDv7: sorts by the time it was minted (RFC 9562, section 5.7). */
  next<Kind extends string>(): Id<Kind>
}

export const systemIds: Ids = { next: <Kind extends string>() => uuidv7() as Id<Kind> }

/** The id of a saga: `<type>-<uuid>`, such as `device_creation-0198...`. Its prefix tells which service keeps it. */
export const SagaId = z
  .string()
  .regex(
    /^[a-z][a-z0-9_]{1,40}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/,
    'must look like <saga_type>-<uuid>',
  )
  .meta({ description: 'The id of a saga: its type, a hyphen and a UUID.' })

/** The instant at which a UUIDv7 was minted; undefined for any other version. */
export function timeOfId(id: string): Date | undefined {
  const hex = id.replaceAll('-', '')
  if (hex.length !== 32 || hex[12] !== '7') return undefined
  return new Date(Number.parseInt(hex.slice(0, 12), 16))
}
