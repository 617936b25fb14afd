import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { connect } from 'node:net'
import { dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { buildApk, zip } from '@cloudphone/apk/testing/build-apk'
import type { Caller } from '@cloudphone/contracts/access'
import { type App, GetApk, type Installation } from '@cloudphone/contracts/api/apps-api'
import { platformRoutes } from '@cloudphone/contracts/api/platform-api'
import { AppInstallCompleted, AppInstallFailed } from '@cloudphone/contracts/events/app-events'
import { DeviceDeleted } from '@cloudphone/contracts/events/device-events'
import { type AppId, type InstallationId, systemIds } from '@cloudphone/contracts/id'
import type { Answer } from '@cloudphone/testing/ask'
import { callerOf } from '@cloudphone/testing/token-mint'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { type AppsTown, openAppsTown, type Phone } from './testing/apps-town.ts'

const appium = join(
  dirname(createRequire(import.meta.url).resolve('io.appium.settings/package.json')),
  'apks/settings_apk-debug.apk',
)
const limitBytes = 32 * 1024 ** 2

let town: AppsTown
let realApk: Buffer
beforeAll(async () => {
  realApk = await readFile(appium)
  town = await openAppsTown({
    env: {
      APPS_MAX_APK_BYTES: String(limitBytes),
      APPS_INSTALL_TIMEOUT_MINUTES: '15',
      APPS_WATCHDOG_EVERY_MS: '200',
      APPS_SWEEP_EVERY_MS: '200',
    },
  })
})
afterAll(() => town?.close())

async function ask(
  caller: Caller,
  method: string,
  path: string,
  { instance = 0, ...more }: { body?: unknown; form?: FormData; key?: string; instance?: 0 | 1 } = {},
): Promise<Pick<Answer, 'status' | 'body'>> {
  const { status, body } = await town.ask(town.instances[instance], caller, { method, path, ...more })
  return { status, body }
}

async function upload(caller: Caller, apk: Buffer, instance: 0 | 1 = 0, field = 'file') {
  const form = new FormData()
  form.append(field, new Blob([new Uint8Array(apk)]), 'an.apk')
  return await ask(caller, 'POST', '/api/apps', { form, instance })
}

const tinyApk = () => buildApk({ packageName: `dev.example.a${systemIds.next<'app'>().replaceAll('-', '')}` })

async function tinyApp(caller: Caller): Promise<App> {
  const { status, body } = await upload(caller, await tinyApk())
  expect(status).toBe(201)
  return body.data
}

async function install(caller: Caller, app: App, phone: Phone, instance: 0 | 1 = 0): Promise<Installation> {
  const body = { deviceId: phone.id }
  const answer = await ask(caller, 'POST', `/api/apps/${app.id}/install`, { body, instance })
  expect(answer.status).toBe(202)
  return answer.body.data
}

const factsOf = (one: Installation) => ({
  ...{ installationId: one.installationId, appId: one.appId, deviceId: one.deviceId, userId: one.userId },
  packageName: 'dev.example',
})
const complete = (one: Installation) =>
  town.publish(AppInstallCompleted, {
    aggregateId: one.installationId,
    payload: { ...factsOf(one), completedAt: new Date().toISOString() },
  })
const fail = (one: Installation, reason: string) =>
  town.publish(AppInstallFailed, {
    aggregateId: one.installationId,
    payload: { ...factsOf(one), reason, failedAt: new Date().toISOString() },
  })
const get = (caller: Caller, id: InstallationId, query = '', instance: 0 | 1 = 0) =>
  ask(caller, 'GET', `/api/installations/${id}${query}`, { instance })

/** Every file below the blob store, drafts too. */
async function files(): Promise<string[]> {
  const found = await readdir(town.blobFolder, { recursive: true, withFileTypes: true })
  return found
    .filter((one) => one.isFile())
    .map((one) => join(one.parentPath, one.name).slice(town.blobFolder.length + 1))
    .sort()
}

describe('uploads', () => {
  test('a real APK is described, kept, and given to the devices service byte for byte', async () => {
    const caller = callerOf()
    const { status, body } = await upload(caller, realApk)
    const app: App = body.data
    expect(status).toBe(201)
    expect(app).toMatchObject({
      ...{ packageName: 'io.appium.settings', versionName: '8.0.10', label: 'Appium Settings' },
      ...{ minSdk: 26, targetSdk: 35, sizeBytes: realApk.length, hasIcon: true, uploadedBy: caller.userId },
      sha256: createHash('sha256').update(realApk).digest('hex'),
    })
    expect(app.permissions).toContain('android.permission.INTERNET')
    const kept = await buffer(await town.devices.stream(GetApk, { params: { appId: app.id } }))
    expect(kept.equals(realApk)).toBe(true)
    const icon = await fetch(`${town.instances[1].address}/api/apps/${app.id}/icon`, {
      headers: { authorization: `Bearer ${town.tokenFor(caller)}` },
    })
    expect(icon.headers.get('content-type')).toBe('image/png')
    const png = Buffer.from(await icon.arrayBuffer())
    expect(png.subarray(0, 8).toString('latin1')).toBe('\x89PNG\r\n\x1a\n')
    expect(Number(icon.headers.get('content-length'))).toBe(png.length)
    const other = callerOf()
    for (const path of ['', '/icon']) {
      expect(await ask(other, 'GET', `/api/apps/${app.id}${path}`)).toMatchObject({
        ...{ status: 404, body: { code: 'app_not_found' } },
      })
    }
  })

  test('the same bytes at once and again are one app per tenant, with one blob', async () => {
    const [one, other] = [callerOf(), callerOf()]
    const apk = await tinyApk()
    const before = await files()
    const answers = await Promise.all([0, 1, 0, 1].map((at) => upload(one, apk, at as 0 | 1)))
    const first: App = answers[0]!.body.data
    for (const { status, body } of answers) {
      expect(status).toBe(201)
      expect(body.data).toEqual(first)
    }
    const again: App = (await upload(callerOf({ tenantId: one.tenantId }), apk)).body.data
    expect(again).toEqual(first)
    const elsewhere: App = (await upload(other, apk)).body.data
    expect(elsewhere.id).not.toBe(first.id)
    expect(await files()).toEqual([...before, `apps/${first.id}.apk`, `apps/${elsewhere.id}.apk`].sort())
  })

  test.each([
    ['apk_empty', 422, async () => Buffer.alloc(0)],
    ['apk_not_zip', 422, async () => Buffer.from('just some text')],
    ['apk_not_zip', 422, async () => realApk.subarray(0, realApk.length / 2)],
    ['apk_no_manifest', 422, () => zip({ 'readme.txt': Buffer.from('hello') })],
    ['apk_malformed', 422, () => zip({ 'AndroidManifest.xml': Buffer.from('<manifest/>') })],
    ['apk_zip_bomb', 422, () => zip({ 'AndroidManifest.xml': Buffer.alloc(80 * 1024 ** 2) })],
    ['apk_too_large', 413, async () => Buffer.alloc(limitBytes + 1)],
    ['apk_too_large', 413, async () => Buffer.alloc(limitBytes * 5)],
  ] as const)('%s is refused with %i, and nothing of it is left', async (code, status, make) => {
    const before = await files()
    expect(await upload(callerOf(), await make())).toMatchObject({ status, body: { code, success: false } })
    expect(await files()).toEqual(before)
  })

  test('words that PostgreSQL would refuse are made plain', async () => {
    const apk = await buildApk({
      ...{ packageName: 'dev.example.words', label: 'a\0b\ud800', versionName: '1\0' },
      permissions: ['x\0y', '\0'],
    })
    const { status, body } = await upload(callerOf(), apk)
    expect(status).toBe(201)
    expect(body.data).toMatchObject({ label: 'a b\ufffd', versionName: '1', permissions: ['x y'] })
  })

  test('a form without the file and a body that is no form are refused', async () => {
    const apk = await tinyApk()
    expect(await upload(callerOf(), apk, 0, 'other')).toMatchObject({
      ...{ status: 400, body: { code: 'file_missing' } },
    })
    expect(await ask(callerOf(), 'POST', '/api/apps', { body: {} })).toMatchObject({ status: 415 })
  })

  test('a caller who hangs up in the middle leaves nothing', async () => {
    const before = await files()
    const { hostname, port } = new URL(town.instances[0].address)
    const socket = connect(Number(port), hostname)
    const head = [
      'POST /api/apps HTTP/1.1',
      'host: test',
      `authorization: Bearer ${town.tokenFor(callerOf())}`,
      'content-type: multipart/form-data; boundary=cut',
      'content-length: 1000000',
      '',
      '--cut',
      'content-disposition: form-data; name="file"; filename="a.apk"',
      '',
      '',
    ]
    socket.write(head.join('\r\n'))
    socket.write(realApk.subarray(0, 500_000))
    await vi.waitFor(async () => expect((await files()).length).toBe(before.length + 1), 10_000)
    socket.destroy()
    await vi.waitFor(async () => expect(await files()).toEqual(before), 10_000)
  })
})

describe('the list', () => {
  test('has the apps of the tenant, newest first, page by page', async () => {
    const caller = callerOf()
    const made: string[] = []
    for (let at = 0; at < 3; at += 1) made.unshift((await tinyApp(caller)).id)
    await tinyApp(callerOf())
    const first = await ask(callerOf({ tenantId: caller.tenantId }), 'GET', '/api/apps?limit=2')
    const next = await ask(caller, 'GET', `/api/apps?limit=2&cursor=${first.body.page!.nextCursor}`)
    const ids = [...(first.body.data as App[]), ...(next.body.data as App[])].map(({ id }) => id)
    expect(ids).toEqual(made)
    expect(next.body.page).toEqual({ nextCursor: null })
  })
})

describe('installations', () => {
  test('are asked for by event, wait for their end at another instance, and end once', async () => {
    const caller = callerOf()
    const app = await tinyApp(caller)
    const phone = town.addPhone(caller)
    phone.allocationId = systemIds.next<'allocation'>()
    phone.fence = 7
    const one = await install(caller, app, phone)
    expect(one).toMatchObject({ status: 'pending', reason: null, endedAt: null, userId: caller.userId })
    const { rows } = await town.database.pool.query(
      'select event_type, aggregate_type, aggregate_version, payload from event_outbox where aggregate_id = $1',
      [one.installationId],
    )
    expect(rows).toEqual([
      {
        ...{ event_type: 'app.install.requested', aggregate_type: 'installation', aggregate_version: 1 },
        payload: {
          ...{ ...factsOf(one), packageName: app.packageName, allocationId: phone.allocationId, fence: 7 },
          ...{ versionCode: app.versionCode, sizeBytes: app.sizeBytes, sha256: app.sha256 },
        },
      },
    ])
    const bytes = await town.devices.stream(GetApk, {
      params: { appId: app.id },
      query: { installationId: one.installationId },
    })
    await bytes.dump()
    expect((await get(caller, one.installationId)).body.data).toMatchObject({ status: 'installing' })

    const waiting = ([0, 1] as const).map((instance) => get(caller, one.installationId, '?wait=60', instance))
    await complete(one)
    for (const { body } of await Promise.all(waiting))
      expect(body.data).toMatchObject({ status: 'installed' })
    await fail(one, 'too late')
    await town.drain()
    expect((await get(caller, one.installationId, '?wait=60')).body.data).toMatchObject({
      ...{ status: 'installed', reason: null, endedAt: expect.any(String) },
    })
  })

  test('that fail say why, and a wait that is too short ends by itself', async () => {
    const caller = callerOf()
    const one = await install(caller, await tinyApp(caller), town.addPhone(caller))
    expect((await get(caller, one.installationId, '?wait=1')).body.data).toMatchObject({ status: 'pending' })
    await fail(one, 'INSTALL_FAILED_INSUFFICIENT_STORAGE')
    expect((await get(caller, one.installationId, '?wait=60')).body.data).toMatchObject({
      ...{ status: 'failed', reason: 'INSTALL_FAILED_INSUFFICIENT_STORAGE' },
    })
  })

  test('asked for again while live are the first one, at once and under one Idempotency-Key for ever', async () => {
    const caller = callerOf()
    const app = await tinyApp(caller)
    const phone = town.addPhone(caller)
    const many = await Promise.all([0, 1, 0, 1, 0].map((at) => install(caller, app, phone, at as 0 | 1)))
    expect(new Set(many.map(({ installationId }) => installationId)).size).toBe(1)
    await complete(many[0]!)
    await get(caller, many[0]!.installationId, '?wait=60')
    expect((await install(caller, app, phone)).installationId).not.toBe(many[0]!.installationId)
    const keyed = {
      body: { deviceId: town.addPhone(caller).id },
      key: 'abcdefgh-1',
    }
    const [first, second] = [
      await ask(caller, 'POST', `/api/apps/${app.id}/install`, keyed),
      await ask(caller, 'POST', `/api/apps/${app.id}/install`, { ...keyed, instance: 1 }),
    ]
    expect(second).toEqual(first)
  })

  test('need a right to a phone that runs', async () => {
    const caller = callerOf()
    const app = await tinyApp(caller)
    const mine = town.addPhone(caller)
    const path = `/api/apps/${app.id}/install`
    const tryOn = (who: Caller, deviceId: string) => ask(who, 'POST', path, { body: { deviceId } })
    const [colleague, operator] = [
      callerOf({ tenantId: caller.tenantId }),
      callerOf({ role: 'operator', tenantId: caller.tenantId }),
    ]
    expect(await tryOn(colleague, mine.id)).toMatchObject({ status: 403, body: { code: 'not_allocated' } })
    expect(await tryOn(caller, systemIds.next<'device'>())).toMatchObject({
      ...{ status: 404, body: { code: 'device_not_found' } },
    })
    expect(await tryOn(callerOf(), mine.id)).toMatchObject({ status: 404, body: { code: 'app_not_found' } })
    expect(await tryOn(operator, mine.id)).toMatchObject({ status: 202 })
    mine.status = 'STOPPED'
    expect(await tryOn(caller, mine.id)).toMatchObject({ status: 409, body: { code: 'device_not_running' } })
  })

  test('are shown to their user and to operators of the tenant only', async () => {
    const caller = callerOf()
    const [colleague, operator] = [
      callerOf({ tenantId: caller.tenantId }),
      callerOf({ role: 'operator', tenantId: caller.tenantId }),
    ]
    const app = await tinyApp(caller)
    const [phone, other] = [town.addPhone(caller), town.addPhone(caller)]
    const first = await install(caller, app, phone)
    const second = await install(caller, app, other)
    const list = async (who: Caller, query = '') =>
      ((await ask(who, 'GET', `/api/installations${query}`)).body.data as Installation[]).map(
        ({ installationId }) => installationId,
      )
    expect(await list(caller)).toEqual([second.installationId, first.installationId])
    expect(await list(operator, `?deviceId=${phone.id}`)).toEqual([first.installationId])
    expect(await list(colleague)).toEqual([])
    expect((await get(operator, first.installationId)).status).toBe(200)
    expect(await get(colleague, first.installationId)).toMatchObject({
      ...{ status: 403, body: { code: 'forbidden' } },
    })
    expect(await get(callerOf(), first.installationId)).toMatchObject({
      ...{ status: 404, body: { code: 'installation_not_found' } },
    })
  })

  test('fail with their phone, and only with theirs', async () => {
    const caller = callerOf()
    const app = await tinyApp(caller)
    const [gone, stays] = [town.addPhone(caller), town.addPhone(caller)]
    const [lost, other] = [await install(caller, app, gone), await install(caller, app, stays)]
    const facts = { deviceId: gone.id, deviceName: 'phone', tenantId: caller.tenantId, userId: caller.userId }
    const deletedAt = new Date().toISOString()
    await town.publish(DeviceDeleted, {
      aggregateId: gone.id,
      payload: { ...facts, allocationId: null, fence: 0, reason: 'deleted', deletedAt },
    })
    expect((await get(caller, lost.installationId, '?wait=60')).body.data).toMatchObject({
      ...{ status: 'failed', reason: 'device deleted' },
    })
    expect((await get(caller, other.installationId)).body.data).toMatchObject({ status: 'pending' })
  })

  test('that nobody ends have timed out after a quarter of an hour', async () => {
    const caller = callerOf()
    const one = await install(caller, await tinyApp(caller), town.addPhone(caller))
    const waiting = get(caller, one.installationId, '?wait=60', 1)
    await town.moveTime(16 * 60_000)
    expect((await waiting).body.data).toMatchObject({ status: 'failed', reason: 'timed out' })
  })
})

describe('deletion', () => {
  test('is for the uploader and operators, not during an installation, and takes the blobs with it', async () => {
    const caller = callerOf()
    const app: App = (await upload(caller, realApk)).body.data
    const phone = town.addPhone(caller)
    const drop = (who: Caller) => ask(who, 'DELETE', `/api/apps/${app.id}`)
    expect(await drop(callerOf())).toMatchObject({ status: 404 })
    expect(await drop(callerOf({ tenantId: caller.tenantId }))).toMatchObject({ status: 403 })
    const one = await install(caller, app, phone)
    expect(await drop(caller)).toMatchObject({ status: 409, body: { code: 'app_in_use' } })
    await complete(one)
    await get(caller, one.installationId, '?wait=60')
    expect((await files()).filter((key) => key.includes(app.id))).toHaveLength(2)
    expect(await drop(callerOf({ role: 'operator', tenantId: caller.tenantId }))).toEqual({
      status: 204,
      body: undefined,
    })
    expect((await files()).filter((key) => key.includes(app.id))).toEqual([])
    expect(await drop(caller)).toMatchObject({ status: 404 })
    expect((await get(caller, one.installationId)).body.data).toMatchObject({ status: 'installed' })
    await expect(town.devices.call(GetApk, { params: { appId: app.id } })).rejects.toMatchObject({
      status: 404,
    })
  })

  test('and installations at once: never a live installation of an app that is gone', async () => {
    const caller = callerOf()
    for (let round = 0; round < 10; round += 1) {
      const app = await tinyApp(caller)
      const body = { deviceId: town.addPhone(caller).id }
      const [installed, deleted] = await Promise.all([
        ask(caller, 'POST', `/api/apps/${app.id}/install`, { body }),
        ask(caller, 'DELETE', `/api/apps/${app.id}`, { instance: 1 }),
      ])
      expect([`202 409`, `404 204`]).toContain(`${installed.status} ${deleted.status}`)
    }
  })
})

describe('what crashes leave', () => {
  const extra: string[] = []
  afterEach(async () => {
    for (const key of extra.splice(0)) await town.platform.blobs.delete(key)
  })
  const put = async (id: AppId, ending: string): Promise<string> => {
    await using draft = await town.platform.blobs.draft(Readable.from([Buffer.from('left')]))
    const key = `apps/${id}.${ending}`
    await draft.commit(key)
    extra.push(key)
    return key
  }
  /** A UUIDv7 minted then. */
  const idOf = (at: number): AppId => {
    const hex = at.toString(16).padStart(12, '0')
    return `${hex.slice(0, 8)}-${hex.slice(8)}-7000-8000-000000000000` as AppId
  }

  test('blobs without a row go when they are old; others stay', async () => {
    const app = await tinyApp(callerOf())
    const now = (await town.database.pool.query('select app_now() as now')).rows[0].now.getTime()
    const young = await put(idOf(now - 30 * 60_000), 'apk')
    const old = await Promise.all(['apk', 'icon.png'].map((ending) => put(idOf(now - 61 * 60_000), ending)))
    await vi.waitFor(async () => {
      const left = await files()
      for (const key of old) expect(left).not.toContain(key)
    }, 10_000)
    expect(await files()).toEqual(expect.arrayContaining([young, `apps/${app.id}.apk`]))
  })

  test('an app whose bytes are lost is reported, refused, and mended by the same upload', async () => {
    const caller = callerOf()
    const apk = await tinyApk()
    const app: App = (await upload(caller, apk)).body.data
    const judge = async () => {
      const { reports } = await town.devices.call(platformRoutes('apps').invariants)
      const own = reports.filter(({ name }) => name === 'Every app still has its bytes')
      return own.map(({ holds, culprits }) => ({ holds, ids: culprits.map(({ id }) => id) }))
    }
    expect(await judge()).toEqual([{ holds: true, ids: [] }])
    await town.platform.blobs.delete(`apps/${app.id}.apk`)
    expect(await judge()).toEqual([{ holds: false, ids: [app.id] }])
    await expect(town.devices.stream(GetApk, { params: { appId: app.id } })).rejects.toMatchObject({
      ...{ status: 410, code: 'apk_lost', retryable: false },
    })
    expect((await upload(caller, apk)).body.data).toEqual(app)
    expect(await judge()).toEqual([{ holds: true, ids: [] }])
  })
})

test('an upload that breaks off between blob and row leaves no app, and no blob for long', async () => {
  const env = { APPS_SWEEP_EVERY_MS: '200' }
  await using other = await openAppsTown({ env, crashPoints: 'apps.blobs_kept=throw' })
  const { blobs } = other.platform
  const caller = callerOf()
  const send = async () => {
    const form = new FormData()
    form.append('file', new Blob([new Uint8Array(realApk)]), 'an.apk')
    return await other.ask(other.instances[0], caller, { method: 'POST', path: '/api/apps', form })
  }
  const listed = async () => (await Array.fromAsync(blobs.list('apps/'))).length
  expect((await send()).status).toBe(500)
  expect(await other.database.kysely.selectFrom('apps').selectAll().execute()).toEqual([])
  expect(await listed()).toBe(2)
  expect((await send()).status).toBe(201)
  expect(await listed()).toBe(4)
  await other.moveTime(61 * 60_000)
  await vi.waitFor(async () => expect(await listed()).toBe(2), 10_000)
  const [row] = await other.database.kysely.selectFrom('apps').selectAll().execute()
  expect(await blobs.open(`apps/${row!.id}.apk`)).toMatchObject({ sizeBytes: realApk.length })
})

test('an instance that closes lets those go who wait, and serves no more', async () => {
  const caller = callerOf()
  const one = await install(caller, await tinyApp(caller), town.addPhone(caller))
  const waiting = get(caller, one.installationId, '?wait=60', 1)
  await vi.waitFor(async () => {
    const metrics = await (await fetch(`${town.instances[1].address}/metrics`)).text()
    expect(metrics).toMatch(/^apps_waiting\{.*\} 1$/m)
  }, 10_000)
  await town.instances[1].close()
  expect((await waiting).body.data).toMatchObject({ status: 'pending' })
})
