import { z } from 'zod'
import { DeviceStatus, Hygiene, ProviderType } from '../device.ts'
import { AllocationId, DeviceId, TenantId, UserId } from '../id.ts'
import { bytes, item, list, none, PageQuery, route } from '../route.ts'

export const Device = z.object({
  id: DeviceId,
  name: z.string(),
  tenantId: TenantId,
  /** The owner of a dedicated phone; null for a pooled one. */
  userId: UserId.nullable(),
  status: DeviceStatus,
  type: z.enum(['phone', 'tablet']),
  providerType: ProviderType,
  cpuCores: z.int(),
  memoryMB: z.int(),
  storageMB: z.int(),
  resolution: z.string(),
  dpi: z.int(),
  androidVersion: z.string(),
  containerName: z.string().nullable(),
  adbHost: z.string().nullable(),
  adbPort: z.int().nullable(),
  /** Who holds a pooled phone now. */
  allocationId: AllocationId.nullable(),
  fence: z.int(),
  /** What a pooled phone has on it: only a clean one is given to anybody. */
  hygiene: Hygiene,
  metadata: z.record(z.string(), z.unknown()),
  lastError: z.string().nullable(),
  createdAt: z.iso.datetime(),
  updatedAt: z.iso.datetime(),
  startedAt: z.iso.datetime().nullable(),
})
export type Device = z.infer<typeof Device>

const ByDevice = z.strictObject({ deviceId: DeviceId })
const Accepted = z.object({ sagaId: z.string(), device: Device })

/** Ten values at most, short keys, so that metadata stays a note and does not become a store. */
const Metadata = z
  .record(z.string().min(1).max(64), z.union([z.string().max(512), z.number(), z.boolean()]))
  .refine((value) => Object.keys(value).length <= 32, 'at most 32 entries')

export const CreateDevice = route({
  name: 'createDevice',
  service: 'devices',
  method: 'POST',
  path: '/api/devices',
  summary: 'Create a phone. Answers at once; the saga carries it out.',
  access: { kind: 'user', permission: 'devices:use' },
  audit: 'device.create',
  body: z.strictObject({
    name: z
      .string()
      .trim()
      .min(1)
      .max(64)
      .regex(/^[^\p{Cc}]*$/u, 'must not hold control characters'),
    /** Whose phone. Default: the caller's. Null makes a pooled phone (operators). */
    userId: UserId.nullable().optional(),
    cpuCores: z.int().min(1).max(16).default(2),
    memoryMB: z.int().min(512).max(65_536).default(4096),
    storageMB: z.int().min(512).max(1_048_576).default(10_240),
    resolution: z
      .string()
      .regex(/^\d{3,4}x\d{3,4}$/, 'must look like 1920x1080')
      .refine(
        (value) => value.split('x').every((side) => Number(side) >= 240 && Number(side) <= 3840),
        'each side must be 240 to 3840',
      )
      .default('1920x1080'),
    dpi: z.int().min(120).max(640).default(240),
    androidVersion: z.enum(['11', '12', '13', '14', '15']).default('11'),
    type: z.enum(['phone', 'tablet']).default('phone'),
    providerType: ProviderType.optional(),
    providerSpecificConfig: z.record(z.string().max(64), z.unknown()).optional(),
    metadata: Metadata.default({}),
  }),
  answer: item(Accepted, 202),
  problems: ['quota_exceeded', 'user_not_found'],
})

export const ListDevices = route({
  name: 'listDevices',
  service: 'devices',
  method: 'GET',
  path: '/api/devices',
  summary: 'Phones that the caller may see, newest first.',
  access: { kind: 'user', permission: 'devices:read' },
  query: PageQuery.extend({
    status: DeviceStatus.optional(),
    userId: UserId.optional(),
    pool: z.stringbool().optional(),
  }),
  answer: list(Device),
})

export const GetDevice = route({
  name: 'getDevice',
  service: 'devices',
  method: 'GET',
  path: '/api/devices/:deviceId',
  summary: 'One phone. 410 with the reason for 30 days after a creation that failed.',
  access: { kind: 'user', permission: 'devices:read' },
  params: ByDevice,
  answer: item(Device),
  problems: ['device_not_found', 'device_creation_failed'],
})

const lifecycle = (name: string, verb: 'start' | 'stop', summary: string) =>
  route({
    name,
    service: 'devices',
    method: 'POST',
    path: `/api/devices/:deviceId/${verb}`,
    summary,
    access: { kind: 'user', permission: 'devices:use' },
    audit: `device.${verb}`,
    params: ByDevice,
    answer: item(Accepted, 202),
    problems: ['device_not_found', 'illegal_transition', 'operation_in_progress', 'stale_allocation'],
  })

export const StartDevice = lifecycle('startDevice', 'start', 'Start a stopped phone, or one that failed.')
export const StopDevice = lifecycle('stopDevice', 'stop', 'Stop a running phone; /data is kept.')

export const ResetDevice = route({
  name: 'resetDevice',
  service: 'devices',
  method: 'POST',
  path: '/api/devices/:deviceId/reset',
  summary:
    'Erase all that its users left on a phone, as new; one that ran is started again. A pooled one is reset by operators, and by itself between two holders.',
  access: { kind: 'user', permission: 'devices:use' },
  audit: 'device.reset',
  params: ByDevice,
  answer: item(Accepted, 202),
  problems: ['device_not_found', 'illegal_transition', 'operation_in_progress', 'device_allocated'],
})

export const DeleteDevice = route({
  name: 'deleteDevice',
  service: 'devices',
  method: 'DELETE',
  path: '/api/devices/:deviceId',
  summary: 'Delete a phone and all it holds.',
  access: { kind: 'user', permission: 'devices:use' },
  audit: 'device.delete',
  params: ByDevice,
  answer: item(Accepted, 202),
  problems: ['device_not_found', 'operation_in_progress', 'device_allocated'],
})

export const Screenshot = route({
  name: 'screenshot',
  service: 'devices',
  method: 'GET',
  path: '/api/devices/:deviceId/screenshot',
  summary: 'What the phone shows now, as a PNG.',
  access: { kind: 'user', permission: 'devices:use' },
  params: ByDevice,
  answer: bytes('image/png'),
  problems: ['device_not_found', 'device_not_running'],
})

export const AdbKey = z.object({
  id: z.guid(),
  label: z.string(),
  /** MD5 of the key as `adb` prints it: AA:BB:... */
  fingerprint: z.string(),
  createdAt: z.iso.datetime(),
})
export type AdbKey = z.infer<typeof AdbKey>

export const AddAdbKey = route({
  name: 'addAdbKey',
  service: 'devices',
  method: 'POST',
  path: '/api/adb-keys',
  summary: 'Register one of one’s adb public keys (the line in ~/.android/adbkey.pub); idempotent.',
  access: { kind: 'user', permission: 'devices:use' },
  audit: 'adb_key.add',
  body: z.strictObject({
    publicKey: z.string().min(100).max(2000),
    label: z.string().trim().max(64).optional(),
  }),
  answer: item(AdbKey, 201),
  problems: ['invalid_adb_key', 'too_many_adb_keys'],
})

export const ListAdbKeys = route({
  name: 'listAdbKeys',
  service: 'devices',
  method: 'GET',
  path: '/api/adb-keys',
  summary: 'One’s own adb keys.',
  access: { kind: 'user', permission: 'devices:read' },
  query: PageQuery,
  answer: list(AdbKey),
})

export const DeleteAdbKey = route({
  name: 'deleteAdbKey',
  service: 'devices',
  method: 'DELETE',
  path: '/api/adb-keys/:adbKeyId',
  summary: 'Remove an adb key; connections that use it are cut.',
  access: { kind: 'user', permission: 'devices:use' },
  audit: 'adb_key.delete',
  params: z.strictObject({ adbKeyId: z.guid() }),
  answer: none,
  problems: ['adb_key_not_found'],
})

/* Between services. */

export const SetHolder = route({
  name: 'setHolder',
  service: 'devices',
  method: 'PUT',
  path: '/internal/devices/:deviceId/holder',
  summary:
    'Raise the fence of a pooled phone and name its holder (null: nobody), replace its adb keys and cut other connections. Idempotent by fence; a lower fence is refused.',
  access: { kind: 'service' },
  params: ByDevice,
  body: z.strictObject({
    fence: z.int().positive(),
    allocationId: AllocationId.nullable(),
    userId: UserId.nullable(),
  }),
  answer: item(Device),
  problems: [
    'device_not_found',
    'stale_allocation',
    'device_not_running',
    'device_not_pooled',
    'operation_in_progress',
    'device_not_clean',
    'adb_keys_pending',
  ],
})

export const CheckAccess = route({
  name: 'checkAccess',
  service: 'devices',
  method: 'GET',
  path: '/internal/devices/:deviceId/access',
  summary: 'May this user use this phone now, and under which allocation and fence?',
  access: { kind: 'service' },
  params: ByDevice,
  query: z.strictObject({ userId: UserId, tenantId: TenantId, any: z.stringbool().default(false) }),
  answer: item(z.object({ device: Device, allocationId: AllocationId.nullable(), fence: z.int() })),
  problems: ['device_not_found', 'not_allocated'],
})

export const StopForShutdown = route({
  name: 'stopForShutdown',
  service: 'devices',
  method: 'POST',
  path: '/internal/devices/shutdown',
  summary:
    'The platform is being switched off: stop every running simulated phone (device.stopped, reason `shutdown`) and remember to start it again. Answers how many were stopped.',
  access: { kind: 'service' },
  answer: item(z.object({ stopped: z.int() })),
})
