import { randomUUID } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import { zip } from '@cloudphone/apk/testing/build-apk'
import * as apps from '@cloudphone/contracts/api/apps-api'
import * as devices from '@cloudphone/contracts/api/devices-api'
import type { Client } from '@cloudphone/sdk/client'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  type Answer,
  ask,
  createPhone,
  ended,
  newPerson,
  operate,
  type Person,
  type Question,
  quotaUsed,
  realApk,
} from '../src/door.ts'
import { somebodyElsewhere } from '../src/elsewhere.ts'
import { openPlatform, type TestPlatform } from '../src/platform.ts'
import { until } from '../src/until.ts'

/* Whatever is sent, the answer is a problem with the right status and code, and nothing has changed. */

let platform: TestPlatform
let alice: Person
let bob: Person
/** An administrator of another tenant: its rights end at that tenant's wall. */
let stranger: Client
let phone: devices.Device
let app: apps.App

beforeAll(async () => {
  platform = await openPlatform()
  alice = await newPerson(platform.client)
  bob = await newPerson(platform.client)
  stranger = await somebodyElsewhere(platform)
  phone = await createPhone(alice.client)
  app = await alice.client.upload(apps.UploadApp, await (await realApk()).file())
  // What follows from these has happened before anything is compared.
  await until('all events to be published', async () => {
    const rows = await platform.books.query(
      "select from devices.event_outbox where status <> 'published' union all select from apps.event_outbox where status <> 'published'",
    )
    return rows.length === 0
  })
})
afterAll(() => platform?.close())

/** All that a request could have changed. */
async function everything() {
  const rows = await platform.books.query(`
    select (select json_agg(d order by id) from (select id, status, version, name from devices.devices) d) as devices,
           (select count(*)::int from devices.saga_state) as device_sagas,
           (select count(*)::int from scheduler.saga_state) as scheduler_sagas,
           (select count(*)::int from devices.event_outbox) as device_events,
           (select json_agg(q order by reservation_id) from (select reservation_id, state from users.quota_reservations) q) as quota,
           (select count(*)::int from users.users) as users,
           (select count(*)::int from apps.apps) as apps,
           (select count(*)::int from apps.installations) as installations,
           (select count(*)::int from scheduler.allocations) as allocations`)
  const { phones } = await platform.host.list()
  const blobs = await readdir(join(platform.dataDir, 'blobs'), { recursive: true })
  return {
    rows,
    blobs: blobs.sort(),
    phones: phones.map(({ id, state, generation }) => [id, state, generation]),
  }
}

/** Sends it and checks that the refusal is a whole problem document and that nothing has changed. */
async function refused(send: () => Promise<Answer>, status: number, code: string): Promise<Answer> {
  const before = await everything()
  const answer = await send()
  expect({ status: answer.status, code: answer.body?.code }).toEqual({ status, code })
  expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json/)
  expect(answer.body).toMatchObject({
    ...{ success: false, status, type: `urn:cloudphone:problem:${code}` },
    ...{ requestId: expect.stringMatching(/^[\w.-]{8,64}$/), detail: expect.stringMatching(/.{10}/) },
  })
  expect(answer.headers.get('x-request-id')).toBe(answer.body.requestId)
  // Nothing of our inside: no stack, no path, no SQL.
  expect(JSON.stringify(answer.body)).not.toMatch(/node_modules|\.ts:\d|\bselect\b .* from|ECONN/)
  expect(await everything()).toEqual(before)
  return answer
}

const deviceOf = (id: string) => `/api/devices/${id}`
const nobody = '01890000-0000-7000-8000-000000000000'

describe('bodies', () => {
  const create = (body: unknown) => () => ask(alice.client, 'POST', '/api/devices', { body })

  test.each([
    ['an unknown field', { name: 'x', root: true }, 'root'],
    ['a wrong type', { name: 'x', cpuCores: '4' }, 'body.cpuCores'],
    ['no name', {}, 'body.name'],
    ['an empty name', { name: '   ' }, 'body.name'],
    ['a name of 65 characters', { name: 'n'.repeat(65) }, 'body.name'],
    ['a name with control characters', { name: 'a\nb\u0000' }, 'body.name'],
    ['17 CPU cores', { name: 'x', cpuCores: 17 }, 'body.cpuCores'],
    ['half a CPU core', { name: 'x', cpuCores: 1.5 }, 'body.cpuCores'],
    ['1e308 MB of memory', { name: 'x', memoryMB: 1e308 }, 'body.memoryMB'],
    ['a negative storage', { name: 'x', storageMB: -1 }, 'body.storageMB'],
    ['a screen of 9999x9999', { name: 'x', resolution: '9999x9999' }, 'body.resolution'],
    ['an array for a body', [], 'body'],
    ['null for a body', null, 'body'],
    [
      '33 entries of metadata',
      { name: 'x', metadata: Object.fromEntries(Array.from({ length: 33 }, (_, n) => [`k${n}`, n])) },
      'body.metadata',
    ],
    ['a prototype', JSON.parse('{"name":"x","__proto__":{"admin":true}}'), ''],
  ])('%s is refused by name', async (_what, body, path) => {
    const { body: problem } = await refused(create(body), 400, 'invalid_request')
    if (path !== '') expect(JSON.stringify(problem.errors)).toContain(path)
  })

  test.each<[string, Question, number, string]>([
    [
      'broken JSON',
      { raw: '{"name":', headers: { 'content-type': 'application/json' } },
      400,
      'invalid_request',
    ],
    [
      'a form where JSON belongs',
      { raw: 'name=x', headers: { 'content-type': 'application/x-www-form-urlencoded' } },
      415,
      'unsupported_media_type',
    ],
    [
      'more than 1 MiB',
      { body: { name: 'x', metadata: { big: 'x'.repeat(1024 * 1024) } } },
      413,
      'body_too_large',
    ],
    [
      'JSON 5,000 levels deep',
      { raw: `${'['.repeat(5000)}${']'.repeat(5000)}`, headers: { 'content-type': 'application/json' } },
      400,
      'invalid_request',
    ],
  ])('%s is refused', async (_what, question, status, code) => {
    await refused(() => ask(alice.client, 'POST', '/api/devices', question), status, code)
  })

  test.each([
    ['GET', '/api/devices?limit=100000', 400, 'invalid_request'],
    ['GET', '/api/devices?limit=ten', 400, 'invalid_request'],
    ['GET', '/api/devices?cursor=%27%3B--', 400, 'invalid_request'],
    ['GET', '/api/devices?order=name', 400, 'invalid_request'],
    ['GET', '/api/sagas/device_creation-1?wait=30', 404, 'saga_not_found'],
    ['GET', "/api/sagas/device_creation-'%20or%201=1", 404, 'saga_not_found'],
    ['GET', `/api/sagas/device_creation-${nobody}?wait=99999`, 400, 'invalid_request'],
    ['GET', `/api/sagas/device_creation-${nobody}`, 404, 'saga_not_found'],
    ['GET', `/api/sagas/world_domination-${nobody}`, 404, 'saga_not_found'],
    ['GET', deviceOf('1'), 400, 'invalid_request'],
    ['GET', deviceOf(nobody), 404, 'device_not_found'],
    ['DELETE', deviceOf(nobody), 404, 'device_not_found'],
    ['POST', `${deviceOf(nobody)}/start`, 404, 'device_not_found'],
    ['GET', `/api/apps/${nobody}`, 404, 'app_not_found'],
    ['GET', `/api/installations/${nobody}`, 404, 'installation_not_found'],
    ['GET', `/api/allocations/${nobody}`, 404, 'allocation_not_found'],
    ['GET', '/api/nothing', 404, 'not_found'],
    ['PATCH', '/api/devices', 404, 'not_found'],
  ])('%s %s is %i %s', async (method, path, status, code) => {
    await refused(() => ask(alice.client, method, path), status, code)
  })
})

describe('names and paths', () => {
  test('a name that is a shell command is just a name', async () => {
    const name = '$(reboot); rm -rf / `id` \' " ../../etc'
    const evil = await createPhone(alice.client, { name })
    expect(evil).toMatchObject({ name, status: 'RUNNING' })
    expect(evil.containerName).toBe(`cloudphone-reboot-rm-rf-id-etc-${evil.id}`)
    const view = await platform.host.get(evil.id)
    expect(view).toMatchObject({ name: evil.containerName, state: 'running', generation: 1 })
    expect((await operate(alice.client, devices.DeleteDevice, evil.id)).status).toBe('COMPLETED')
  })

  test('a name without a letter has a container too', async () => {
    const odd = await createPhone(alice.client, { name: '📱✨' })
    expect(odd).toMatchObject({ name: '📱✨', containerName: `cloudphone-phone-${odd.id}` })
    expect((await operate(alice.client, devices.DeleteDevice, odd.id)).status).toBe('COMPLETED')
  })

  /** As it is: `fetch` would tidy the path up. */
  async function plainly(method: string, path: string): Promise<Answer> {
    const { hostname, port } = new URL(platform.url)
    const token = await alice.client.accessToken()
    return await new Promise((resolve, reject) => {
      const asked = request({ hostname, port, method, path, headers: { authorization: `Bearer ${token}` } })
      asked.once('error', reject)
      asked.once('response', (response) => {
        const parts: Buffer[] = []
        response.on('data', (part: Buffer) => parts.push(part))
        response.once('end', () => {
          const headers = new Headers(
            Object.entries(response.headers).map(([name, value]) => [name, String(value)]),
          )
          resolve({
            status: response.statusCode ?? 0,
            headers,
            body: JSON.parse(String(Buffer.concat(parts))),
          })
        })
      })
      asked.end()
    })
  }

  test.each([
    ['POST', '/internal/devices/shutdown', 404, 'not_found'],
    ['POST', '/api/../internal/devices/shutdown', 404, 'not_found'],
    ['POST', '/api/devices/..%2f..%2finternal%2fdevices%2fshutdown', 404, 'not_found'],
    ['POST', '//internal/devices/shutdown', 404, 'not_found'],
    ['GET', '/api/devices/../../internal/sagas', 404, 'not_found'],
    ['GET', '/api/devices/%2e%2e%2f%2e%2e%2finternal%2fsagas', 404, 'not_found'],
    ['GET', '/api/devices/%00', 404, 'not_found'],
    ['GET', '/api/devices/%zz', 400, 'invalid_request'],
    ['GET', '/api/docs/..%2f..%2f..%2fpackage.json', 404, 'not_found'],
  ])('%s %s leads nowhere', async (method, path, status, code) => {
    await refused(() => plainly(method, path), status, code)
  })
})

describe('uploads', () => {
  const send = async (content: Buffer, field = 'file') => {
    const form = new FormData()
    form.append(field, new Blob([new Uint8Array(content)]), '../../evil.apk')
    return await ask(alice.client, 'POST', '/api/apps', { raw: form })
  }

  test.each<[string, () => Promise<Buffer>, number, string]>([
    ['0 bytes', async () => Buffer.alloc(0), 422, 'apk_empty'],
    ['no zip', async () => Buffer.from('#!/bin/sh\nreboot\n'), 422, 'apk_not_zip'],
    ['a zip without a manifest', () => zip({ 'a.txt': Buffer.from('a') }), 422, 'apk_no_manifest'],
    [
      'a broken manifest',
      () => zip({ 'AndroidManifest.xml': Buffer.from('<manifest/>') }),
      422,
      'apk_malformed',
    ],
    ['a zip bomb', () => zip({ 'AndroidManifest.xml': Buffer.alloc(80 * 1024 ** 2) }), 422, 'apk_zip_bomb'],
  ])('%s is refused', async (_what, make, status, code) => {
    const content = await make()
    await refused(() => send(content), status, code)
  })

  // Any form that broke off was once our failure: a 500.
  test.each([
    ['in its file', 'form-data; name="file"; filename="a.apk"'],
    ['in a file that nobody asked for', 'form-data; name="__proto__"; filename="a.apk"'],
    ['in a field', 'form-data; name="note"'],
  ])('a form that ends %s is refused', async (_what, disposition) => {
    const raw = `--b\r\nContent-Disposition: ${disposition}\r\n\r\nPK\u0003\u0004`
    const headers = { 'content-type': 'multipart/form-data; boundary=b' }
    const answer = await ask(alice.client, 'POST', '/api/apps', { raw, headers })
    expect([answer.status, answer.body.code]).toEqual([
      400,
      expect.stringMatching(/^(form_malformed|file_missing|invalid_request)$/),
    ])
  })

  test('a form without a boundary is refused', async () => {
    const headers = { 'content-type': 'multipart/form-data' }
    await refused(() => ask(alice.client, 'POST', '/api/apps', { raw: 'x', headers }), 400, 'form_malformed')
  })

  test('a form without the file is refused', async () => {
    await refused(() => send(Buffer.from('x'), 'other'), 400, 'file_missing')
  })
})

describe('somebody else', () => {
  test.each<[string, string, () => string, Question, string]>([
    ['reads a phone', 'GET', () => deviceOf(phone.id), {}, 'device_forbidden'],
    ['looks at its screen', 'GET', () => `${deviceOf(phone.id)}/screenshot`, {}, 'device_forbidden'],
    ['stops it', 'POST', () => `${deviceOf(phone.id)}/stop`, {}, 'device_forbidden'],
    ['deletes it', 'DELETE', () => deviceOf(phone.id), {}, 'device_forbidden'],
    [
      'makes a pooled phone',
      'POST',
      () => '/api/devices',
      { body: { name: 'x', userId: null } },
      'forbidden',
    ],
    [
      'makes an account',
      'POST',
      () => '/api/users',
      { body: { email: 'a@b.example', password: 'long enough to pass', name: 'x' } },
      'forbidden',
    ],
    ['asks the doctor', 'GET', () => '/api/doctor', {}, 'forbidden'],
    ['reads dead letters', 'GET', () => '/api/dead-letters', {}, 'forbidden'],
    ['reads an account', 'GET', () => `/api/users/${alice.user.id}`, {}, 'forbidden'],
    ['reads a quota', 'GET', () => `/api/users/${alice.user.id}/quota`, {}, 'forbidden'],
  ])('of the same tenant who %s gets 403', async (_what, method, path, question, code) => {
    await refused(() => ask(bob.client, method, path(), question), 403, code)
  })

  test('of the same tenant cannot have an app installed on a phone that is not his', async () => {
    const install = `/api/apps/${app.id}/install`
    const answer = await ask(bob.client, 'POST', install, { body: { deviceId: phone.id } })
    expect(answer.status).toBe(403)
    await refused(
      () => ask(bob.client, 'POST', install, { body: { deviceId: nobody } }),
      404,
      'device_not_found',
    )
  })

  test.each<[string, string, () => string, Question, string]>([
    ['reads a phone', 'GET', () => deviceOf(phone.id), {}, 'device_not_found'],
    ['deletes it', 'DELETE', () => deviceOf(phone.id), {}, 'device_not_found'],
    ['reads an app', 'GET', () => `/api/apps/${app.id}`, {}, 'app_not_found'],
    ['deletes it', 'DELETE', () => `/api/apps/${app.id}`, {}, 'app_not_found'],
    ['reads an account', 'GET', () => `/api/users/${alice.user.id}`, {}, 'user_not_found'],
    [
      'gives a phone to a user',
      'POST',
      () => '/api/devices',
      { body: { name: 'x', userId: '' } },
      'user_not_found',
    ],
  ])(
    'of another tenant who %s gets 404, even as its administrator',
    async (_what, method, path, question, code) => {
      const body = question.body as { userId?: string } | undefined
      const asked = body?.userId === '' ? { body: { ...body, userId: alice.user.id } } : question
      await refused(() => ask(stranger, method, path(), asked), 404, code)
    },
  )

  test('does not see the saga of a phone', async () => {
    const [row] = await platform.books.query(
      'select creation_saga_id as id from devices.devices where id = $1',
      [phone.id],
    )
    const path = `/api/sagas/${row?.id}`
    expect((await ask(alice.client, 'GET', path)).status).toBe(200)
    expect((await ask(bob.client, 'GET', path)).status).toBeOneOf([403, 404])
    await refused(() => ask(stranger, 'GET', path), 404, 'saga_not_found')
    for (const someone of [bob.client, stranger]) {
      for (const list of ['/api/sagas', '/api/devices', '/api/installations', '/api/billing/usage']) {
        expect((await ask(someone, 'GET', list)).body.data).toEqual([])
      }
    }
  })
})

describe('tokens', () => {
  const withToken = (token: string) => () =>
    ask(platform.url, 'GET', deviceOf(phone.id), { headers: { authorization: `Bearer ${token}` } })

  test('none, garbage, and one that is cut are refused', async () => {
    await refused(() => ask(platform.url, 'GET', deviceOf(phone.id)), 401, 'unauthenticated')
    await refused(withToken('garbage'), 401, 'invalid_token')
    await refused(withToken((await alice.client.accessToken()).slice(0, -4)), 401, 'invalid_token')
    await refused(withToken(`cpk_${'A'.repeat(43)}`), 401, 'invalid_api_key')
  })
})

describe('Idempotency-Key', () => {
  const create = (key: string, body: unknown, person = alice) =>
    ask(person.client, 'POST', '/api/devices', { body, headers: { 'idempotency-key': key } })

  test('the same request again gets the same answer and one phone; another body is refused', async () => {
    const key = randomUUID()
    const body = { name: 'once', resolution: '360x640' }
    const first = await create(key, body)
    expect(first.status).toBe(202)
    const saga = await ended(alice.client, first.body.data.sagaId)
    expect(saga.status).toBe('COMPLETED')
    const before = await everything()
    const again = await create(key, body)
    expect([again.status, again.body.data]).toEqual([202, first.body.data])
    expect(await everything()).toEqual(before)
    await refused(() => create(key, { ...body, name: 'twice' }), 422, 'idempotency_key_reused')
    expect((await quotaUsed(alice.client, alice.user.id)).devices).toBe(2)

    // A key is a caller's own.
    const his = await create(key, body, bob)
    expect(his.body.data.device.id).not.toBe(first.body.data.device.id)
    await ended(bob.client, his.body.data.sagaId)
    await operate(bob.client, devices.DeleteDevice, his.body.data.device.id)
    await operate(alice.client, devices.DeleteDevice, first.body.data.device.id)
  })

  test('while the first is still being handled, the second is told so', async () => {
    const key = randomUUID()
    const body = { name: 'slow', resolution: '360x640' }
    const first = await platform.books.holding(
      'lock table users.quota_reservations in exclusive mode',
      async () => {
        const pending = create(key, body)
        await until('the first to be taken up', async () => {
          const rows = await platform.books.query('select from devices.idempotency_key where key = $1', [key])
          return rows.length === 1
        })
        await refused(() => create(key, body), 409, 'request_in_progress')
        return { pending }
      },
    )
    const { status, body: answer } = await first.pending
    expect(status).toBe(202)
    expect((await ended(alice.client, answer.data.sagaId)).status).toBe('COMPLETED')
    expect((await create(key, body)).body.data.device.id).toBe(answer.data.device.id)
    await operate(alice.client, devices.DeleteDevice, answer.data.device.id)
  })

  test('ten at once make one phone', async () => {
    const key = randomUUID()
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => create(key, { name: 'ten', resolution: '360x640' })),
    )
    const made = answers.filter(({ status }) => status === 202)
    const waiting = answers.filter(({ status }) => status !== 202)
    expect(made.length).toBeGreaterThanOrEqual(1)
    expect(new Set(made.map(({ body }) => body.data.device.id)).size).toBe(1)
    for (const { status, body } of waiting) expect([status, body.code]).toEqual([409, 'request_in_progress'])
    expect((await ended(alice.client, made[0]?.body.data.sagaId)).status).toBe('COMPLETED')
    expect((await quotaUsed(alice.client, alice.user.id)).devices).toBe(2)
    await operate(alice.client, devices.DeleteDevice, made[0]?.body.data.device.id)
  })

  test.each(['', 'k'.repeat(256)])('a key that is too short or too long is refused', async (key) => {
    const headers = { 'idempotency-key': key }
    await refused(
      () => ask(alice.client, 'POST', '/api/devices', { body: { name: 'x' }, headers }),
      400,
      'invalid_request',
    )
  })
})
