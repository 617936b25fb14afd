import { z } from 'zod'
import { parseAdbPublicKey } from '../adb/public-key.ts'

/* The contract of the phone host's API: HTTP and JSON over a unix socket. Bodies refuse fields they do not know.
 * Errors are `application/problem+json`: { type, status, code, message, retryable }.
 */

const MAX_KEYS = 64
const MAX_KEY_CHARS = 2048

const PhoneId = z.uuid().transform((id) => id.toLowerCase())

const AdbKey = z
  .string()
  .max(MAX_KEY_CHARS)
  .superRefine((line, context) => {
    try {
      parseAdbPublicKey(line)
    } catch (error) {
      context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : String(error) })
    }
  })

const AdbKeys = z.array(AdbKey).max(MAX_KEYS)

const Labels = z
  .record(z.string().min(1).max(128), z.string().max(256))
  .refine((labels) => Object.keys(labels).length <= 64, 'at most 64 labels')

/** `PhoneProfile` without id and name. */
const Profile = z.strictObject({
  width: z.int().min(64).max(7680),
  height: z.int().min(64).max(7680),
  dpi: z.int().min(72).max(960),
  androidVersion: z.string().regex(/^\d{1,2}(\.\d{1,2}){0,2}$/, 'an Android version such as 11'),
  model: z.string().min(1).max(64),
  cpuCores: z.int().min(1).max(64),
  memoryMb: z.int().min(256).max(1_048_576),
  storageMb: z.int().min(64).max(16_777_216),
  bootMs: z.int().min(0).max(600_000),
})

export const CreatePhone = z.strictObject({
  id: PhoneId,
  name: z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$/, 'a container-like name'),
  labels: Labels.default({}),
  profile: Profile,
  adb: z.strictObject({
    host: z.literal('127.0.0.1', 'a phone listens on 127.0.0.1 only'),
    port: z.int().min(1).max(65535),
  }),
  adbKeys: AdbKeys.default([]),
  restart: z.enum(['no', 'on-failure']).default('no'),
})

export const PhoneState = z.enum(['created', 'booting', 'running', 'stopped', 'crashed'])

export const PhoneView = z.object({
  id: z.string(),
  name: z.string(),
  labels: z.record(z.string(), z.string()),
  profile: Profile,
  state: PhoneState,
  adb: z.object({ host: z.literal('127.0.0.1'), port: z.number() }),
  /** Authenticated adb connections at this moment. */
  connections: z.number(),
  restart: z.enum(['no', 'on-failure']),
  createdAt: z.string(),
  startedAt: z.string().nullable(),
  bootedAt: z.string().nullable(),
  exitedAt: z.string().nullable(),
  /** Why it stopped or crashed: `requested`, `host_shutdown`, `power_off`, `host_lost`, or what a crash said. */
  exitReason: z.string().nullable(),
  /** How often it was started. */
  generation: z.number(),
})

/** `seq` is that of the last event before the list was made: follow the events from there and nothing is missed. */
export const PhoneList = z.object({ phones: z.array(PhoneView), seq: z.number() })

export const HostInfo = z.object({
  /** Minted once per directory. */
  hostId: z.string(),
  pid: z.number(),
  version: z.string(),
  startedAt: z.string(),
  phones: z.record(PhoneState, z.number()),
  seq: z.number(),
})

export const PhoneEventType = z.enum([
  'phone.created',
  'phone.started',
  'phone.booted',
  'phone.stopped',
  'phone.crashed',
  'phone.wiped',
  'phone.destroyed',
])

export const PhoneEvent = z.object({
  /** 1, 2, 3 ... without gaps. */
  seq: z.number(),
  at: z.string(),
  type: PhoneEventType,
  phoneId: z.string(),
  name: z.string(),
  labels: z.record(z.string(), z.string()),
  /** Of started: `requested`, `reboot` or `restart_policy`; of stopped and crashed: the exit reason. */
  reason: z.string().nullable(),
  generation: z.number(),
})

/** Which kinds make sense for which operation. */
const FAULT_KINDS = {
  create: ['fail', 'slow', 'hang', 'disappear', 'too_many_requests'],
  start: ['fail', 'slow', 'hang', 'crash', 'disappear', 'too_many_requests'],
  boot: ['fail', 'slow', 'stuck', 'crash', 'disappear'],
  adb: ['fail', 'slow', 'hang', 'flap'],
  wipe: ['fail', 'slow', 'hang', 'partial'],
  destroy: ['fail', 'slow', 'hang', 'too_many_requests'],
} as const satisfies Record<string, readonly string[]>

const Operation = z.enum(['create', 'start', 'boot', 'adb', 'wipe', 'destroy'])
const Kind = z.enum([
  'fail',
  'slow',
  'hang',
  'stuck',
  'flap',
  'crash',
  'disappear',
  'too_many_requests',
  'partial',
])

export const FaultRule = z
  .strictObject({
    op: Operation,
    kind: Kind,
    probability: z.number().min(0).max(1),
    /** Of slow: how much longer; of flap, crash and disappear: how long until it happens; of too_many_requests: Retry-After. */
    delayMs: z.int().min(0).max(3_600_000).optional(),
    /** After this many hits the rule is spent. */
    times: z.int().min(1).optional(),
    /** `name` is a glob with * and ?; every label named must be equal. Without a match the rule meets every phone. */
    match: z
      .strictObject({ name: z.string().min(1).max(256).optional(), labels: Labels.optional() })
      .optional(),
  })
  .superRefine((rule, context) => {
    const kinds: readonly string[] = FAULT_KINDS[rule.op]
    if (kinds.includes(rule.kind)) return
    context.addIssue({ code: 'custom', path: ['kind'], message: `${rule.op} takes ${kinds.join(', ')}` })
  })

/** What a wipe did: how many entries of the phone's directory it erased, and the names of those it could not. */
export const WipeReport = z.object({ erased: z.int(), residue: z.array(z.string()) })

/** An empty list of rules turns the faults off. */
export const FaultPlan = z.strictObject({
  seed: z.int().min(0).max(0xffffffff),
  rules: z.array(FaultRule).max(64),
})

/** A plan and, for each rule, how often it was drawn and how often it hit. */
export const FaultReport = FaultPlan.extend({
  counts: z.array(z.object({ draws: z.number(), hits: z.number() })),
})

export const ReplaceKeys = z.strictObject({ keys: AdbKeys })
export const CrashPhone = z.strictObject({ reason: z.string().min(1).max(256) })
export const PhoneParams = z.strictObject({ id: PhoneId })
export const ListQuery = z.strictObject({
  /** `key=value`; may be given more than once, all must be equal. */
  label: z
    .union([z.string(), z.array(z.string())])
    .transform((label) => (Array.isArray(label) ? label : [label]))
    .pipe(z.array(z.string().regex(/^[^=]+=.*$/, 'key=value')))
    .optional(),
})
export const StartQuery = z.strictObject({ wait: z.enum(['listen', 'boot']).default('listen') })
export const EventsQuery = z.strictObject({
  /** Events after this one; without it those from now on. */
  since: z.coerce.number().int().min(0).optional(),
  /** `false` ends the answer after the events that are there. */
  follow: z.enum(['true', 'false']).default('true'),
})

export const Problem = z.object({
  type: z.string(),
  status: z.number(),
  code: z.string(),
  message: z.string(),
  retryable: z.boolean(),
})

/** As a caller writes it: labels, keys and restart may be left out. */
export type CreatePhoneInput = z.input<typeof CreatePhone>
export type CreatePhone = z.output<typeof CreatePhone>
export type PhoneState = z.output<typeof PhoneState>
export type PhoneView = z.output<typeof PhoneView>
export type PhoneList = z.output<typeof PhoneList>
export type WipeReport = z.output<typeof WipeReport>
export type HostInfo = z.output<typeof HostInfo>
export type PhoneEvent = z.output<typeof PhoneEvent>
export type PhoneEventType = z.output<typeof PhoneEventType>
export type FaultRule = z.output<typeof FaultRule>
export type FaultPlan = z.output<typeof FaultPlan>
export type FaultReport = z.output<typeof FaultReport>
export type FaultOperation = z.output<typeof Operation>
