import { randomBytes } from 'node:crypto'
import { request } from 'node:http'
import type { PhoneApp, PhoneFile, ShellLine } from '@cloudphone/contracts/api/device-operations-api'
import type { Device } from '@cloudphone/contracts/api/devices-api'
import { SetHolder } from '@cloudphone/contracts/api/devices-api'
import { type AllocationId, systemIds, type UserId } from '@cloudphone/contracts/id'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type DevicesBed, openDevicesBed } from '../testing/devices-bed.ts'
import type { Person } from '../testing/neighbours.ts'

let bed: DevicesBed
let alice: Person
let phone: Device
beforeAll(async () => {
  bed = await openDevicesBed()
  alice = bed.neighbours.person('member')
  phone = await bed.createRunning(alice)
})
afterAll(async () => await bed?.[Symbol.asyncDispose]())

const on = ({ id }: Device, path: string) => `/api/devices/${id}/${path}`

/** The answer as it comes. */
async function open(
  person: Person,
  method: string,
  path: string,
  options: { body?: object; form?: FormData; signal?: AbortSignal } = {},
): Promise<Response> {
  const { body, form, signal } = options
  return await fetch(`${bed.running.address}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${person.token}`,
      ...(body !== undefined && { 'content-type': 'application/json' }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
    ...(form !== undefined && { body: form }),
    ...(signal !== undefined && { signal }),
  })
}

async function* linesOf(response: Response): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let text = ''
  for await (const part of response.body ?? []) {
    text += decoder.decode(part as Uint8Array, { stream: true })
    const lines = text.split('\n')
    text = lines.pop() ?? ''
    yield* lines
  }
}

/** What a program wrote, and how it ended. */
async function shell(person: Person, argv: readonly string[], device = phone, timeoutSeconds = 30) {
  const response = await open(person, 'POST', on(device, 'shell'), { body: { argv, timeoutSeconds } })
  if (!response.ok) return { status: response.status, problem: await response.json() }
  const said = { stdout: [] as Buffer[], stderr: [] as Buffer[] }
  let last: ShellLine | undefined
  for await (const line of linesOf(response)) {
    last = JSON.parse(line) as ShellLine
    if ('stdout' in last) said.stdout.push(Buffer.from(last.stdout, 'base64'))
    if ('stderr' in last) said.stderr.push(Buffer.from(last.stderr, 'base64'))
  }
  return { out: Buffer.concat(said.stdout), err: Buffer.concat(said.stderr).toString(), last }
}

/** The first lines up to one that fits. */
async function upTo(response: Response, fits: (line: string) => boolean): Promise<string[]> {
  const seen: string[] = []
  for await (const line of linesOf(response)) {
    seen.push(line)
    if (fits(line)) return seen
  }
  return seen
}

test('a program gets its arguments as they are; what it writes, where, and its exit code come back', async () => {
  const odd = `$HOME; "two"  'three' \`id\` \\ &| * 手机`
  expect(await shell(alice, ['echo', odd, ''])).toMatchObject({
    out: Buffer.from(`${odd} \n`),
    err: '',
    last: { exitCode: 0 },
  })
  const failed = await shell(alice, ['cat', '/sdcard/not-there'])
  expect(failed.err).toContain('No such file')
  expect(failed.last).toEqual({ exitCode: 1 })
  const { rows } = await sql<{ after: { argv?: string[] } }>`
    select state_after as after from audit_log where target = ${phone.id} and verb = 'device.shell' order by id`.execute(
    bed.database.kysely,
  )
  expect(rows[0]?.after.argv).toEqual(['echo', odd, ''])
})

test('a program is killed when its time is up, and when its user is shut out', async () => {
  expect(await shell(alice, ['sleep', '600'], phone, 1)).toMatchObject({
    last: { error: { code: 'command_late', detail: expect.stringContaining('1 s') } },
  })
  const bob = bed.neighbours.person('operator', alice.tenantId)
  const running = await open(bob, 'POST', on(phone, 'shell'), { body: { argv: ['sleep', '600'] } })
  const lines = upTo(running, (line) => line.includes('error'))
  const log = await open(bob, 'GET', on(phone, 'logcat?follow=true'))
  bed.town.revoke(bob.userId)
  expect((await lines).at(-1)).toContain('token_revoked')
  await expect(upTo(log, () => false)).rejects.toThrow()
  await bed.until('the end of both', async () => {
    const { out } = await shell(alice, ['ps', '-A'])
    return out !== undefined && !out.includes('sleep') && !out.includes('logcat')
  })
})

test('of a pooled phone only its holder has a shell, and it ends with his hold', async () => {
  const operator = bed.neighbours.person('operator')
  const carol = bed.neighbours.person('member', operator.tenantId)
  const pooled = await bed.createRunning(operator, { userId: null })
  const hold = async (fence: number, holder: { allocationId: AllocationId; userId: UserId } | null) =>
    await bed.scheduler.call(SetHolder, {
      params: { deviceId: pooled.id },
      body: { fence, allocationId: holder?.allocationId ?? null, userId: holder?.userId ?? null },
    })
  expect(await shell(carol, ['id'], pooled)).toMatchObject({
    status: 403,
    problem: { code: 'not_allocated' },
  })
  await hold(1, { allocationId: systemIds.next<'allocation'>(), userId: carol.userId })
  expect(await shell(carol, ['id'], pooled)).toMatchObject({ last: { exitCode: 0 } })
  const running = await open(carol, 'POST', on(pooled, 'shell'), { body: { argv: ['sleep', '600'] } })
  const lines = upTo(running, (line) => line.includes('error'))
  await hold(2, null)
  expect((await lines).at(-1)).toMatch(/visit_over|device_not_running/)
})

test('the log is followed, through its filters', async () => {
  const log = await open(
    alice,
    'GET',
    on(phone, `logcat?follow=true&lines=1&filter=${encodeURIComponent('Mine:I *:S')}`),
  )
  expect(log.headers.get('content-type')).toBe('text/plain; charset=utf-8')
  const lines = upTo(log, (line) => line.includes('the second'))
  await shell(alice, ['log', '-t', 'Other', 'not for us'])
  await shell(alice, ['log', '-t', 'Mine', 'the first'])
  await shell(alice, ['log', '-t', 'Mine', 'the second'])
  const text = (await lines).join('\n')
  expect(text).toMatch(/I Mine +: the first\n(.*\n)*.*I Mine +: the second/)
  expect(text).not.toContain('not for us')
  const past = await (await open(alice, 'GET', on(phone, 'logcat?filter=Other:V%20*:S'))).text()
  expect(past).toContain('not for us')
  expect(await bed.ask(alice, 'GET', on(phone, 'logcat?filter=-c'))).toMatchObject({
    status: 400,
    problem: { errors: [{ path: 'query.filter', message: expect.stringContaining('TAG:PRIORITY') }] },
  })
})

test('fingers and keys reach the screen; text arrives as it was typed', async () => {
  const focus = async () => (await shell(alice, ['dumpsys', 'window'])).out?.toString() ?? ''
  const send = async (input: object) =>
    (await bed.ask(alice, 'POST', on(phone, 'input'), { body: { input } })).status
  const start = await bed.ask(alice, 'POST', on(phone, 'packages/com.android.settings/start'))
  expect(start.status).toBe(204)
  expect(await focus()).toContain('com.android.settings')
  expect(await send({ kind: 'key', key: 'HOME' })).toBe(204)
  expect(await focus()).not.toMatch(/mCurrentFocus=.*com\.android\.settings/)
  expect(await send({ kind: 'tap', x: 180, y: 60 })).toBe(204)
  expect(await send({ kind: 'text', text: '50%s off  now' })).toBe(204)
  expect(await send({ kind: 'swipe', fromX: 10, fromY: 300, toX: 300, toY: 300, durationMs: 10 })).toBe(204)
  expect(
    await bed.ask(alice, 'POST', on(phone, 'input'), { body: { input: { kind: 'key', key: 'a; id' } } }),
  ).toMatchObject({
    status: 400,
    problem: { errors: [{ path: 'body.input.key' }] },
  })
  const { rows } = await sql<{ after: Record<string, unknown> }>`
    select state_after as after from audit_log
    where target = ${phone.id} and state_after ->> 'kind' = 'text'`.execute(bed.database.kysely)
  expect(rows).toEqual([{ after: { kind: 'text', characters: 13, allocationId: null } }])
})

test('apps of a phone are listed by name, opened, stopped; what is not there is said', async () => {
  const { data: apps } = await bed.ask<PhoneApp[]>(alice, 'GET', on(phone, 'packages'))
  expect(apps).toContainEqual({
    packageName: 'com.android.settings',
    versionCode: expect.any(Number),
    isSystem: true,
  })
  const first = await bed.ask<PhoneApp[]>(alice, 'GET', on(phone, 'packages?limit=1'))
  const { nextCursor } = (first.problem as unknown as { page: { nextCursor: string } }).page
  const second = await bed.ask<PhoneApp[]>(alice, 'GET', on(phone, `packages?limit=1&cursor=${nextCursor}`))
  expect([...first.data, ...second.data]).toEqual(apps.slice(0, 2))
  const ask = async (method: string, path: string) =>
    await bed.ask(alice, method, on(phone, `packages/${path}`))
  expect((await ask('POST', 'com.android.settings/start')).status).toBe(204)
  expect((await ask('POST', 'com.android.settings/stop')).status).toBe(204)
  const missing = { status: 404, problem: { code: 'package_not_found', packageName: 'com.not.there' } }
  expect(await ask('POST', 'com.not.there/start')).toMatchObject(missing)
  expect(await ask('DELETE', 'com.not.there')).toMatchObject(missing)
  expect(await ask('DELETE', 'com.android.settings')).toMatchObject({
    status: 422,
    problem: { code: 'phone_refused' },
  })
  expect(await ask('DELETE', '-k')).toMatchObject({ status: 400 })
})

test('files go there and back, from any byte on; a broken transfer leaves nothing', async () => {
  const content = randomBytes(3_000_001)
  const form = (bytes: Uint8Array<ArrayBuffer>) => {
    const made = new FormData()
    made.append('file', new Blob([bytes]), 'any name')
    return made
  }
  const at = (path: string) => on(phone, `files/content?path=${encodeURIComponent(path)}`)
  const path = '/sdcard/Download/a file; with "odd" name.bin'
  const pushed = await open(alice, 'PUT', at(path), { form: form(new Uint8Array(content)) })
  expect(await pushed.json()).toMatchObject({ data: { path, sizeBytes: content.length } })
  const pulled = await open(alice, 'GET', at(path))
  expect(pulled.headers.get('content-length')).toBe(String(content.length))
  expect(Buffer.from(await pulled.arrayBuffer()).equals(content)).toBe(true)
  const rest = await open(alice, 'GET', `${at(path)}&offset=2999999`)
  expect(Buffer.from(await rest.arrayBuffer())).toEqual(content.subarray(2_999_999))

  const list = async () =>
    (await bed.ask<PhoneFile[]>(alice, 'GET', on(phone, 'files?path=/sdcard/Download'))).data
  expect(await list()).toEqual([
    {
      ...{
        name: 'a file; with "odd" name.bin',
        kind: 'file',
        sizeBytes: content.length,
        mode: expect.any(Number),
      },
      modifiedAt: expect.stringMatching(/^20/),
    },
  ])
  expect(await bed.ask(alice, 'GET', at('/sdcard/nothing'))).toMatchObject({
    status: 404,
    problem: { code: 'file_not_found' },
  })
  expect(await bed.ask(alice, 'GET', on(phone, 'files?path=/sdcard/nothing'))).toMatchObject({ status: 404 })
  const onFolder = await open(alice, 'PUT', at('/sdcard/Download'), { form: form(new Uint8Array(1)) })
  expect(await onFolder.json()).toMatchObject({ status: 409, code: 'file_is_folder' })

  const half = '/sdcard/Download/half.bin'
  const broken = request(`${bed.running.address}${at(half)}`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${alice.token}`, 'content-type': 'multipart/form-data; boundary=b' },
  })
  broken.on('error', () => undefined)
  broken.write('--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n')
  broken.write(content)
  await bed.until('its beginning', async () => {
    const { rows } = await sql`select 1 from audit_log where state_after ->> 'path' = ${half}`.execute(
      bed.database.kysely,
    )
    return rows.length === 1
  })
  broken.destroy()
  await bed.until('nothing is left of it', async () => (await list()).length === 1)
})
