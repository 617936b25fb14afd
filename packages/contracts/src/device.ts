import { z } from 'zod'

export const DeviceStatus = z.enum(['CREATING', 'RUNNING', 'STOPPED', 'ERROR', 'MAINTENANCE', 'DELETING'])
export type DeviceStatus = z.infer<typeof DeviceStatus>

/**
 * What a pooled phone has on it. `soiled`: what its last holder left, until it is wiped; `quarantined`: nobody knows, since a wipe
 * failed or could not be proved.
 */
export const Hygiene = z.enum(['clean', 'soiled', 'quarantined'])
export type Hygiene = z.infer<typeof Hygiene>

/** The kinds of provider that this version can create phones with. */
export const ProviderType = z.enum(['simulated'])
export type ProviderType = z.infer<typeof ProviderType>
