/* What one does on a phone that runs. Everybody who may use the device may; a phone of the pool is used under one's
 * allocation only, and what lasts (a shell, a log that is followed) ends with the right to it. */
import { z } from 'zod'
import { DeviceId } from '../id.ts'
import { bytes, item, list, live, none, PageQuery, route } from '../route.ts'

const ByDevice = z.strictObject({ deviceId: DeviceId })
const onPhone = {
  service: 'devices',
  access: { kind: 'user', permission: 'devices:use' },
} as const
const refusals = [
  'device_not_found',
  'device_not_running',
  'not_allocated',
  'phone_refused',
  'phone_failed',
] as const

/** As `applicationId` must be, and no option of a command. */
const PackageName = z
  .string()
  .max(255)
  .regex(/^[A-Za-z]\w*(\.[A-Za-z]\w*)+$/, 'must be a package name such as com.example.app')

const ShellCommand = z.strictObject({
  /** The program and its arguments, each as it is: nothing in them is read by the phone's shell. */
  argv: z.array(z.string().max(8192)).min(1).max(256),
  /** After which it is killed. */
  timeoutSeconds: z.int().min(1).max(600).default(60),
})

/**
 * One line of a command's answer. `stdout` and `stderr` are pieces of what it wrote, in base64, so that every byte arrives;
 * the last line is `exitCode`, or `error` when it was ended before it ended by itself.
 */
export const ShellLine = z.union([
  z.strictObject({ started: z.iso.datetime() }),
  z.strictObject({ stdout: z.base64() }),
  z.strictObject({ stderr: z.base64() }),
  z.strictObject({ exitCode: z.int() }),
  z.strictObject({ error: z.strictObject({ code: z.string(), detail: z.string() }) }),
])
export type ShellLine = z.infer<typeof ShellLine>

export const RunShell = route({
  ...onPhone,
  name: 'runShell',
  method: 'POST',
  path: '/api/devices/:deviceId/shell',
  summary:
    'Run a program on a phone. Answers line by line as it goes (JSON lines: started, stdout and stderr in base64, exitCode or error). It runs each time it is asked: an Idempotency-Key changes nothing.',
  audit: 'device.shell',
  params: ByDevice,
  body: ShellCommand,
  answer: live('application/x-ndjson'),
  problems: refusals,
})

const filterSpec = /^[\w.*/-]{1,100}:[VDIWEFS]$/

export const ReadLog = route({
  ...onPhone,
  name: 'readLog',
  method: 'GET',
  path: '/api/devices/:deviceId/logcat',
  summary: 'The log of a phone as text: the last lines, and with follow=true whatever comes, for an hour.',
  params: ByDevice,
  query: z.strictObject({
    /** How many of the lines that are there. */
    lines: z.coerce.number().int().min(1).max(10_000).default(200),
    follow: z.stringbool().default(false),
    /** As logcat takes them: `MyApp:D *:S`. */
    filter: z
      .string()
      .trim()
      .max(1000)
      .refine(
        (text) => text === '' || text.split(/\s+/).every((spec) => filterSpec.test(spec)),
        'must be TAG:PRIORITY, separated by blanks, such as MyApp:D *:S',
      )
      .default(''),
  }),
  answer: live('text/plain; charset=utf-8'),
  problems: refusals,
})

const pixel = z.int().min(0).max(8192)

/** What a finger or a keyboard does. Coordinates in pixels of the screen. */
export const PhoneInput = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('tap'), x: pixel, y: pixel }),
  z.strictObject({
    kind: z.literal('swipe'),
    ...{ fromX: pixel, fromY: pixel, toX: pixel, toY: pixel },
    durationMs: z.int().min(0).max(10_000).default(300),
  }),
  z.strictObject({ kind: z.literal('text'), text: z.string().min(1).max(1000) }),
  /** A key of Android by its name or number: `HOME`, `KEYCODE_BACK`, `66`. */
  z.strictObject({
    kind: z.literal('key'),
    key: z.string().regex(/^(\d{1,3}|(KEYCODE_)?[A-Z][A-Z0-9_]{0,40})$/, 'must be HOME, KEYCODE_BACK or 66'),
  }),
])
export type PhoneInput = z.infer<typeof PhoneInput>

export const SendInput = route({
  ...onPhone,
  name: 'sendInput',
  method: 'POST',
  path: '/api/devices/:deviceId/input',
  summary: 'Tap, swipe, type or press a key on a phone.',
  audit: 'device.input',
  params: ByDevice,
  body: z.strictObject({ input: PhoneInput }),
  answer: none,
  problems: refusals,
})

export const PhoneApp = z.object({
  packageName: z.string(),
  versionCode: z.int().nullable(),
  /** Came with Android: cannot be removed. */
  isSystem: z.boolean(),
})
export type PhoneApp = z.infer<typeof PhoneApp>

export const ListPhoneApps = route({
  ...onPhone,
  name: 'listPhoneApps',
  method: 'GET',
  path: '/api/devices/:deviceId/packages',
  summary: 'What is installed on a phone, as its package manager says, by name.',
  params: ByDevice,
  query: PageQuery,
  answer: list(PhoneApp),
  problems: refusals,
})

const onApp = (name: string, verb: 'start' | 'stop', summary: string) =>
  route({
    ...onPhone,
    name,
    method: 'POST',
    path: `/api/devices/:deviceId/packages/:packageName/${verb}`,
    summary,
    audit: `device.app_${verb}`,
    params: z.strictObject({ deviceId: DeviceId, packageName: PackageName }),
    answer: none,
    problems: [...refusals, 'package_not_found'],
  })

export const StartPhoneApp = onApp('startPhoneApp', 'start', 'Open an app on a phone.')
export const StopPhoneApp = onApp('stopPhoneApp', 'stop', 'Stop an app on a phone.')

export const RemovePhoneApp = route({
  ...onPhone,
  name: 'removePhoneApp',
  method: 'DELETE',
  path: '/api/devices/:deviceId/packages/:packageName',
  summary: 'Uninstall an app from a phone, with its data.',
  audit: 'device.app_remove',
  params: z.strictObject({ deviceId: DeviceId, packageName: PackageName }),
  answer: none,
  problems: [...refusals, 'package_not_found'],
})

const PhonePath = z
  .string()
  .min(1)
  .max(1024)
  .regex(/^\/[^\p{Cc}]*$/u, 'must be an absolute path without control characters')

export const PhoneFile = z.object({
  name: z.string(),
  kind: z.enum(['file', 'folder', 'link', 'other']),
  sizeBytes: z.int(),
  /** Permission bits, such as 420 for rw-r--r--. */
  mode: z.int(),
  modifiedAt: z.iso.datetime(),
})
export type PhoneFile = z.infer<typeof PhoneFile>

export const ListPhoneFiles = route({
  ...onPhone,
  name: 'listPhoneFiles',
  method: 'GET',
  path: '/api/devices/:deviceId/files',
  summary: 'What lies in a folder of a phone, by name.',
  params: ByDevice,
  query: PageQuery.extend({ path: PhonePath.default('/sdcard') }),
  answer: list(PhoneFile),
  problems: [...refusals, 'file_not_found'],
})

export const PullFile = route({
  ...onPhone,
  name: 'pullFile',
  method: 'GET',
  path: '/api/devices/:deviceId/files/content',
  summary: 'A file of a phone, from a byte on: a transfer that broke goes on where it ended.',
  params: ByDevice,
  query: z.strictObject({
    path: PhonePath,
    offset: z.coerce.number().int().min(0).max(Number.MAX_SAFE_INTEGER).default(0),
  }),
  answer: bytes('application/octet-stream'),
  problems: [...refusals, 'file_not_found'],
})

export const PushFile = route({
  ...onPhone,
  name: 'pushFile',
  method: 'PUT',
  path: '/api/devices/:deviceId/files/content',
  summary: 'Put a file on a phone, up to 2 GiB; one that is there is replaced when all has arrived.',
  audit: 'device.push',
  params: ByDevice,
  query: z.strictObject({ path: PhonePath }),
  upload: 'file',
  answer: item(z.object({ path: z.string(), sizeBytes: z.int() })),
  problems: [...refusals, 'file_too_large'],
})
