import { z } from 'zod'

export const DeviceStatus = z.enum(['CREATING', 'RUNNING', 'STOPPED', 'ERROR', 'MAINTENANCE', 'DELETING'])
export type DeviceStatus = z.infer<typeof DeviceStatus>

/** The kinds of provider that this version can create phones with. */
export const ProviderType = z.enum(['simulated'])
export type ProviderType = z.infer<typeof ProviderType>
