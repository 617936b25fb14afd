import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { generateAdbKey } from '@cloudphone/adb-client/adb-key'
import * as apps from '@cloudphone/contracts/api/apps-api'
import { type AuditEntry, ExportAudit, ListAudit } from '@cloudphone/contracts/api/audit-api'
import { CreateDevice } from '@cloudphone/contracts/api/devices-api'
import { ListNotifications } from '@cloudphone/contracts/api/notifications-api'
import { GetSaga, type SagaView } from '@cloudphone/contracts/api/platform-api'
import { type AuditVerb, mustBeAudited, type Route } from '@cloudphone/contracts/route'
import { publicRoutes } from '@cloudphone/contracts/routes'
import { type Client, openClient } from '@cloudphone/sdk/client'
import { present } from '@cloudphone/testing/present'
import { Secret, TOTP } from 'otpauth'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { type Answer, ask, createPhone, ended, newPerson, type Person, realApk } from '../src/door.ts'
import { somebodyElsewhere } from '../src/elsewhere.ts'
import { tokenMailed } from '../src/mails.ts'
import { openPlatform, type TestPlatform } from '../src/platform.ts'
import { until } from '../src/until.ts'

/* Every change that an outsider can ask for is on record, once, with who did it and what it changed. */

// It starts a whole platform, and the machine may be busy.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

/** The routes that must leave a record. */
const audited = publicRoutes.filter((route) => mustBeAudited(route) && typeof route.audit !== 'object')

let platform: TestPlatform
let admin: Client
let adminId: string
let alice: Person

beforeAll(async () => {
  platform = await openPlatform({ MAIL_EVERY_MS: '100' })
  admin = platform.client
  adminId = (await ask(admin, 'GET', '/api/auth/me')).body.data.id
  alice = await newPerson(admin)
})
afterAll(() => platform?.close())

/** What a call has done, and how its record should look. */
interface Deed {
  readonly answer: Answer
  readonly actor: string
  readonly target: string
  readonly before: unknown
  readonly after: unknown
}

const signIn = ({ email, password }: Person) =>
  ask(admin.url, 'POST', '/api/auth/login', { body: { email, password } })
const sessionOf = (answer: Answer): string =>
  JSON.parse(Buffer.from(answer.body.data.accessToken.split('.')[1], 'base64url').toString()).sid
const some = expect.anything()

/** Deeds by `alice`, made in this order by what stands before them. */
const byAlice = async (answer: Answer, record: Omit<Deed, 'answer' | 'actor'>): Promise<Deed> => ({
  ...{ answer, actor: alice.user.id },
  ...record,
})
const byAdmin = (answer: Answer, record: Omit<Deed, 'answer' | 'actor'>): Deed => ({
  ...{ answer, actor: adminId },
  ...record,
})

/* People: Carol, who comes by an invitation, and a tenant that is only there to be changed. */

const carol = { id: '', email: 'carol@example.test', password: randomUUID(), secret: '' }
let invitationId: string
let tenantId: string

const mailed = (count: number) => tokenMailed(join(platform.dataDir, 'mail'), carol.email, count)
/** Carol's session: a new one where hers has ended. */
let carolsClient: Client | undefined
const ofCarol = (method: string, path: string, body: unknown): Promise<Answer> => {
  const { email, password } = carol
  carolsClient ??= openClient({ url: admin.url, credentials: { kind: 'password', email, password } })
  return ask(carolsClient, method, path, { body })
}
const byCarol = (answer: Answer): Deed => ({
  ...{ answer, actor: carol.id, target: carol.id, before: null, after: null },
})
const toCarol = async (verb: string, body: object, change: { before: unknown; after: unknown }) => {
  const answer = await ask(admin, 'POST', `/api/users/${carol.id}/${verb}`, { body })
  return byAdmin(answer, { target: carol.id, ...change })
}
const toTenant = async (verb: string, change: { before: unknown; after: unknown }) => {
  const answer = await ask(admin, 'POST', `/api/tenants/${tenantId}/${verb}`, { body: {} })
  return byAdmin(answer, { target: tenantId, ...change })
}
/** By real time, as the platform goes by it. A code is good once, and those of the steps beside now are taken as well. */
const codeOf = (steps: number): string =>
  new TOTP({ secret: Secret.fromBase32(carol.secret) }).generate({ timestamp: Date.now() + steps * 30_000 })

const someLimits = { maxDevices: 7, maxCpu: 70, maxMemory: 70_000, maxStorage: 700_000 }
const noLimits = { maxDevices: null, maxCpu: null, maxMemory: null, maxStorage: null, maxSessions: null }

let keyId: string
let adbKeyId: string
let phoneId: string
let appId: string
let allocationId: string
let stuckId: string

const lifecycle = async (verb: string, before: string): Promise<Deed> => {
  const answer = await ask(alice.client, 'POST', `/api/devices/${phoneId}/${verb}`)
  const { sagaId } = answer.body.data
  await ended(alice.client, sagaId)
  return byAlice(answer, {
    target: phoneId,
    before: expect.objectContaining({ status: before }),
    after: { sagaId },
  })
}

const onPhone = async (method: string, path: string, body: object = {}): Promise<Deed> => {
  const answer = await ask(alice.client, method, `/api/devices/${phoneId}/${path}`, { body })
  return byAlice(answer, { target: phoneId, before: null, after: { ...body, allocationId: null } })
}

const onApp = async (method: string, verb: string): Promise<Deed> => {
  const { body } = await ask(alice.client, 'GET', `/api/apps/${appId}`)
  const { packageName } = body.data
  const deed = await onPhone(method, `packages/${packageName}${verb}`)
  return { ...deed, after: { packageName, allocationId: null } }
}

const sagaWhere = (is: (saga: SagaView) => boolean): Promise<SagaView> =>
  until(`${stuckId} to come so far`, async () => {
    const saga = await admin.call(GetSaga, { params: { sagaId: stuckId } })
    return is(saga) && saga
  })
const sagaDeed = async (verb: string, body: object): Promise<Deed> => {
  // While it is being tried it is nobody else's.
  const answer = await until(`${verb} of ${stuckId}`, async () => {
    const tried = await ask(admin, 'POST', `/api/sagas/${stuckId}/${verb}`, { body })
    return tried.status !== 409 && tried
  })
  return byAdmin(answer, {
    target: stuckId,
    before: expect.objectContaining({ type: 'device_creation' }),
    after: null,
  })
}

const queue = 'billing-service.device-started'
/** A dead letter, as if billing had refused an event that it in truth has applied. */
const deadLetter = async (): Promise<string> => {
  const [letter] = await platform.books.query(
    `insert into bus.bus_dead_letter (queue, event_id, event_type, aggregate, envelope, error_message, attempts, first_failed_at)
     values ($1, $2, 'device.started', 'none', '{}', 'a test', 4, now()) returning id`,
    [queue, randomUUID()],
  )
  return String(letter?.id)
}

/** One call of each route, in an order in which they can be made. */
const deeds: Record<string, () => Promise<Deed>> = {
  createUser: async () => {
    const body = {
      email: `${randomUUID()}@example.test`,
      password: randomUUID(),
      name: 'Bob',
      role: 'viewer',
    }
    const answer = await ask(admin, 'POST', '/api/users', { body })
    const { password: _password, ...shown } = body
    const after = { ...shown, status: 'active' }
    return byAdmin(answer, { target: answer.body.data.id, before: null, after })
  },
  login: async () => {
    const answer = await signIn(alice)
    return byAlice(answer, { target: sessionOf(answer), before: null, after: null })
  },
  logout: async () => {
    const signedIn = await signIn(alice)
    const { refreshToken } = signedIn.body.data
    const answer = await ask(admin.url, 'POST', '/api/auth/logout', { body: { refreshToken } })
    return byAlice(answer, { target: sessionOf(signedIn), before: null, after: null })
  },
  revokeSession: async () => {
    const session = sessionOf(await signIn(alice))
    const answer = await ask(alice.client, 'DELETE', `/api/users/${alice.user.id}/sessions/${session}`)
    return byAlice(answer, { target: session, before: { userId: alice.user.id }, after: null })
  },
  revokeSessions: async () => {
    await signIn(alice)
    const answer = await ask(alice.client, 'DELETE', `/api/users/${alice.user.id}/sessions`)
    const before = { sessions: expect.any(Array) }
    return byAlice(answer, { target: alice.user.id, before, after: null })
  },
  setQuota: async () => {
    const body = { ...someLimits, maxSessions: null }
    const answer = await ask(admin, 'PUT', `/api/users/${alice.user.id}/quota`, { body })
    return byAdmin(answer, { target: alice.user.id, before: noLimits, after: body })
  },
  setTenantQuota: async () => {
    const { tenantId } = alice.user
    const body = { ...someLimits, maxDevices: 70, maxSessions: 70 }
    const answer = await ask(admin, 'PUT', `/api/tenants/${tenantId}/quota`, { body })
    return byAdmin(answer, { target: tenantId, before: noLimits, after: body })
  },
  createApiKey: async () => {
    const answer = await ask(alice.client, 'POST', '/api/api-keys', { body: { name: 'robot' } })
    keyId = answer.body.data.id
    return byAlice(answer, { target: keyId, before: null, after: expect.objectContaining({ name: 'robot' }) })
  },
  rotateApiKey: async () => {
    const body = { overlapSeconds: 60 }
    const answer = await ask(alice.client, 'POST', `/api/api-keys/${keyId}/rotate`, { body })
    const after = expect.objectContaining({ id: answer.body.data.id, overlapSeconds: 60 })
    return byAlice(answer, { target: keyId, before: { id: keyId }, after })
  },
  deleteApiKey: async () => {
    const answer = await ask(alice.client, 'DELETE', `/api/api-keys/${keyId}`)
    return byAlice(answer, { target: keyId, before: expect.objectContaining({ name: 'robot' }), after: null })
  },
  rotateSigningKey: async () => {
    const answer = await ask(admin, 'POST', '/api/signing-keys/rotate', { body: {} })
    const { kid } = answer.body.data
    return byAdmin(answer, { target: kid, before: null, after: { kid, state: 'next' } })
  },
  addAdbKey: async () => {
    const { publicKey } = await generateAdbKey('alice@test')
    const answer = await ask(alice.client, 'POST', '/api/adb-keys', { body: { publicKey } })
    adbKeyId = answer.body.data.id
    const { fingerprint, label } = answer.body.data
    return byAlice(answer, { target: adbKeyId, before: null, after: { fingerprint, label } })
  },
  deleteAdbKey: async () => {
    const answer = await ask(alice.client, 'DELETE', `/api/adb-keys/${adbKeyId}`)
    return byAlice(answer, { target: adbKeyId, before: { fingerprint: some, label: some }, after: null })
  },
  createDevice: async () => {
    const body = { name: 'mine', resolution: '360x640', dpi: 160 }
    const answer = await ask(alice.client, 'POST', '/api/devices', { body })
    const { device, sagaId } = answer.body.data
    phoneId = device.id
    await ended(alice.client, sagaId)
    return byAlice(answer, {
      target: phoneId,
      before: null,
      after: expect.objectContaining({ ...body, sagaId }),
    })
  },
  stopDevice: () => lifecycle('stop', 'RUNNING'),
  startDevice: () => lifecycle('start', 'STOPPED'),
  resetDevice: () => lifecycle('reset', 'RUNNING'),
  uploadApp: async () => {
    const { name, content } = await (await realApk()).file()
    const form = new FormData()
    form.append('file', content, name)
    const answer = await ask(alice.client, 'POST', '/api/apps', { raw: form })
    appId = answer.body.data.id
    return byAlice(answer, { target: appId, before: null, after: expect.objectContaining({ sha256: some }) })
  },
  installApp: async () => {
    const body = { deviceId: phoneId }
    const answer = await ask(alice.client, 'POST', `/api/apps/${appId}/install`, { body })
    const { installationId: id } = answer.body.data
    await until('the app to be on the phone', async () => {
      const params = { installationId: id }
      const { status } = await alice.client.call(apps.GetInstallation, { params, query: { wait: 10 } })
      return status === 'installed'
    })
    return byAlice(answer, { target: id, before: null, after: expect.objectContaining({ appId, ...body }) })
  },
  runShell: () => onPhone('POST', 'shell', { argv: ['id'] }),
  sendInput: async () => {
    const input = { kind: 'text', text: 'a secret' }
    const deed = await onPhone('POST', 'input', { input })
    return { ...deed, after: { kind: 'text', characters: 8, allocationId: null } }
  },
  pushFile: async () => {
    const form = new FormData()
    form.append('file', new Blob(['a text']), 'a name')
    const path = '/sdcard/a.txt'
    const answer = await ask(alice.client, 'PUT', `/api/devices/${phoneId}/files/content?path=${path}`, {
      raw: form,
    })
    return byAlice(answer, { target: phoneId, before: null, after: { path, allocationId: null } })
  },
  startPhoneApp: () => onApp('POST', '/start'),
  stopPhoneApp: () => onApp('POST', '/stop'),
  removePhoneApp: () => onApp('DELETE', ''),
  readNotification: async () => {
    const notice = await until('a notice', async () => (await alice.client.call(ListNotifications)).items[0])
    const answer = await ask(alice.client, 'POST', `/api/notifications/${notice.id}/read`)
    return byAlice(answer, { target: notice.id, before: null, after: { type: notice.type, readAt: some } })
  },
  deleteApp: async () => {
    const answer = await ask(alice.client, 'DELETE', `/api/apps/${appId}`)
    return byAlice(answer, { target: appId, before: expect.objectContaining({ sha256: some }), after: null })
  },
  deleteDevice: async () => {
    const answer = await ask(alice.client, 'DELETE', `/api/devices/${phoneId}`)
    const { sagaId } = answer.body.data
    await ended(alice.client, sagaId)
    const before = expect.objectContaining({ name: 'mine', status: 'RUNNING' })
    return byAlice(answer, { target: phoneId, before, after: { status: 'DELETING', sagaId } })
  },
  createAllocation: async () => {
    const pooled = await createPhone(admin, { name: 'pooled', userId: null })
    const body = { durationMinutes: 5 }
    const answer = await until('a pooled phone to be free', async () => {
      const asked = await ask(alice.client, 'POST', '/api/allocations', { body })
      return asked.status === 202 && asked
    })
    allocationId = answer.body.data.allocation.id
    await ended(alice.client, answer.body.data.sagaId)
    const after = expect.objectContaining({ deviceId: pooled.id, userId: alice.user.id, ...body })
    return byAlice(answer, { target: allocationId, before: null, after })
  },
  releaseAllocation: async () => {
    const answer = await ask(alice.client, 'POST', `/api/allocations/${allocationId}/release`)
    const [before, after] = [{ status: 'ACTIVE' }, { sagaId: answer.body.data.sagaId }]
    return byAlice(answer, {
      target: allocationId,
      before: expect.objectContaining(before),
      after: expect.objectContaining(after),
    })
  },
  createInvitation: async () => {
    const body = { email: carol.email, role: 'member' }
    const answer = await ask(admin, 'POST', '/api/invitations', { body })
    return byAdmin(answer, { target: answer.body.data.id, before: null, after: body })
  },
  acceptInvitation: async () => {
    const { email, password } = carol
    const body = { token: await mailed(1), name: 'Carol', password }
    const answer = await ask(admin.url, 'POST', '/api/auth/invitations/accept', { body })
    carol.id = answer.body.data.id
    const after = { email, name: 'Carol', role: 'member', status: 'active' }
    return { ...byCarol(answer), after }
  },
  revokeInvitation: async () => {
    const body = { email: 'nobody@example.test' }
    invitationId = (await ask(admin, 'POST', '/api/invitations', { body })).body.data.id
    const answer = await ask(admin, 'DELETE', `/api/invitations/${invitationId}`)
    return byAdmin(answer, { target: invitationId, before: null, after: null })
  },
  updateUser: async () => {
    const answer = await ask(admin, 'PATCH', `/api/users/${carol.id}`, { body: { name: 'Caroline' } })
    const role = 'member'
    return byAdmin(answer, {
      ...{ target: carol.id, before: { name: 'Carol', role }, after: { name: 'Caroline', role } },
    })
  },
  verifyEmail: async () => {
    await ofCarol('POST', '/api/auth/email/verification', {})
    const body = { token: await mailed(2) }
    return byCarol(await ask(admin.url, 'POST', '/api/auth/email/verification/confirm', { body }))
  },
  changePassword: async () => {
    const [oldPassword, newPassword] = [carol.password, randomUUID()]
    const answer = await ofCarol('POST', '/api/auth/password', { oldPassword, newPassword })
    carol.password = newPassword
    return byCarol(answer)
  },
  resetPassword: async () => {
    await ask(admin.url, 'POST', '/api/auth/password/forgot', { body: { email: carol.email } })
    const body = { token: await mailed(3), password: randomUUID() }
    const answer = await ask(admin.url, 'POST', '/api/auth/password/reset', { body })
    carol.password = body.password
    carolsClient = undefined
    return byCarol(answer)
  },
  unlockUser: () => toCarol('unlock', {}, { before: null, after: null }),
  enrolSecondFactor: async () => {
    const { password } = carol
    const answer = await ofCarol('POST', '/api/auth/second-factor', { password })
    carol.secret = answer.body.data.secret
    return byCarol(answer)
  },
  confirmSecondFactor: async () =>
    byCarol(await ofCarol('POST', '/api/auth/second-factor/confirm', { code: codeOf(-1) })),
  renewRecoveryCodes: async () =>
    byCarol(await ofCarol('POST', '/api/auth/second-factor/recovery-codes', { code: codeOf(0) })),
  disableSecondFactor: async () =>
    byCarol(await ofCarol('POST', '/api/auth/second-factor/disable', { code: codeOf(1) })),
  removeSecondFactor: async () => {
    await ofCarol('POST', '/api/auth/second-factor', { password: carol.password })
    const answer = await ask(admin, 'DELETE', `/api/users/${carol.id}/second-factor`)
    return byAdmin(answer, { target: carol.id, before: null, after: null })
  },
  suspendUser: () =>
    toCarol(
      'suspend',
      { reason: 'to see' },
      { before: { status: 'active' }, after: { status: 'suspended' } },
    ),
  activateUser: () =>
    toCarol('activate', {}, { before: { status: 'suspended' }, after: { status: 'active' } }),
  deleteUser: async () => {
    const answer = await ask(admin, 'DELETE', `/api/users/${carol.id}`)
    const before = { email: carol.email, name: 'Caroline', role: 'member' }
    return byAdmin(answer, { target: carol.id, before, after: null })
  },
  createTenant: async () => {
    const body = { slug: 'others', name: 'Others', adminEmail: 'admin@others.test' }
    const answer = await ask(admin, 'POST', '/api/tenants', { body })
    tenantId = answer.body.data.id
    return byAdmin(answer, { target: tenantId, before: null, after: body })
  },
  renameTenant: async () => {
    const answer = await ask(admin, 'PATCH', `/api/tenants/${tenantId}`, { body: { name: 'They' } })
    return byAdmin(answer, { target: tenantId, before: { name: 'Others' }, after: { name: 'They' } })
  },
  suspendTenant: () => toTenant('suspend', { before: { status: 'active' }, after: { status: 'suspended' } }),
  activateTenant: () =>
    toTenant('activate', { before: { status: 'suspended' }, after: { status: 'active' } }),
  turnSagaBack: async () => {
    await platform.host.setFaults({
      seed: 3,
      rules: [
        { op: 'boot', kind: 'stuck', probability: 1, match: { name: 'cloudphone-stuck-*' } },
        { op: 'destroy', kind: 'fail', probability: 1, match: { name: 'cloudphone-stuck-*' } },
      ],
    })
    const body = { name: 'stuck', resolution: '360x640', dpi: 160 }
    stuckId = (await alice.client.call(CreateDevice, { body })).sagaId
    await sagaWhere(({ currentStep }) => currentStep === 'START_DEVICE')
    return await sagaDeed('turn-back', { reason: 'it will never boot' })
  },
  retrySaga: async () => {
    await sagaWhere(({ status }) => status === 'COMPENSATING' || status === 'COMPENSATION_STUCK')
    return await sagaDeed('retry', { reason: 'a try' })
  },
  skipSagaStep: async () => {
    await sagaWhere(({ status }) => status === 'COMPENSATION_STUCK')
    const deed = await sagaDeed('skip', { step: 'CREATE_PROVIDER_DEVICE', reason: 'removed by hand' })
    await platform.host.setFaults({ seed: 3, rules: [] })
    return deed
  },
  replayDeadLetter: async () => {
    const id = await deadLetter()
    const answer = await ask(admin, 'POST', `/api/dead-letters/${id}/replay`, { body: {} })
    return byAdmin(answer, { target: id, before: null, after: null })
  },
  replayDeadLetters: async () => {
    await deadLetter()
    const answer = await ask(admin, 'POST', '/api/dead-letters/replay', { body: { queue } })
    return byAdmin(answer, { target: queue, before: null, after: null })
  },
}

test('every public route that changes something names its record, or why there is none', () => {
  const silent = publicRoutes.filter((route) => mustBeAudited(route) && route.audit === undefined)
  expect(silent.map(({ name }) => name)).toEqual([])
  const reading = publicRoutes.filter((route) => !mustBeAudited(route) && route.audit !== undefined)
  expect(reading.map(({ name }) => name)).toEqual([])
  for (const { audit } of audited) expect(audit).toMatch(/^[a-z_]+\.[a-z_]+$/)
})

/** It needs a provider of identities: `services/users/src/domain/oidc-service.test.ts` looks at its record. */
const triedElsewhere = ['finishOidc']

test('every one of them is tried here', () => {
  const tried = [...Object.keys(deeds), ...triedElsewhere]
  expect(tried.toSorted()).toEqual(audited.map(({ name }) => name).toSorted())
})

describe('a change by', () => {
  test.each(Object.keys(deeds))(
    '%s is on record once: who, what, to which thing, before, after',
    async (name) => {
      const { audit: verb, summary } = routeOf(name)
      const { answer, actor, target, before, after } = await present(deeds[name])()
      expect({ summary, status: answer.status, body: answer.body }).toMatchObject({
        status: expect.any(Number),
      })
      expect(answer.status, JSON.stringify(answer.body)).toBeLessThan(300)
      const requestId = answer.headers.get('x-request-id') ?? ''
      const { items } = await admin.call(ListAudit, { query: { requestId } })
      expect(items).toEqual([
        expect.objectContaining({ verb, actor, target, before, after, requestId, outcome: 'done' }),
      ])
      const passwords = [alice.password, ...Object.values(answer.body?.data ?? {}).filter(isSecret)]
      for (const secret of passwords) expect(JSON.stringify(items)).not.toContain(secret)
    },
  )
})

function routeOf(name: string): Route & { audit: AuditVerb } {
  const route = audited.find((one) => one.name === name)
  if (typeof route?.audit !== 'string') throw new Error(`${name} leaves no record`)
  return { ...route, audit: route.audit }
}

const isSecret = (value: unknown): value is string =>
  typeof value === 'string' && /^(cpk_|cpr_|eyJ).{16}/.test(value)

describe('the log of all services', () => {
  const each = async (query: object): Promise<AuditEntry[]> =>
    await Array.fromAsync(admin.each(ListAudit, { query }))

  test('is one list, newest first, whatever the size of its pages', async () => {
    // Real time: records carry that of the database.
    const to = new Date().toISOString()
    const all = await each({ to, limit: 200 })
    expect(new Set(all.map(({ service }) => service)).size).toBeGreaterThanOrEqual(5)
    expect(all.map(({ id }) => id)).toEqual(
      all
        .map(({ id }) => id)
        .toSorted()
        .toReversed(),
    )
    expect(await each({ to, limit: 7 })).toEqual(all)
  })

  const usesOfPhone = [
    ...['device.app_remove', 'device.app_stop', 'device.app_start'],
    ...['device.push', 'device.input', 'device.shell'],
  ]

  test('is searched by who, what, which thing, outcome and time', async () => {
    const hers = await each({ actor: alice.user.id, verb: 'device.' })
    expect(new Set(hers.map(({ verb }) => verb))).toEqual(
      new Set([
        ...['device.create', 'device.start', 'device.stop', 'device.reset', 'device.delete'],
        ...usesOfPhone,
      ]),
    )
    expect(hers.every(({ actor }) => actor === alice.user.id)).toBe(true)
    const ofPhone = await each({ target: phoneId })
    expect(ofPhone.map(({ verb }) => verb)).toEqual([
      ...['device.delete', ...usesOfPhone, 'device.reset', 'device.start', 'device.stop', 'device.create'],
    ])
    const { at } = present(ofPhone.find(({ verb }) => verb === 'device.start'))
    expect((await each({ target: phoneId, to: at })).map(({ verb }) => verb)).toEqual([
      ...['device.stop', 'device.create'],
    ])
    expect(await each({ target: phoneId, from: at, outcome: 'refused' })).toEqual([])
    const first = present(ofPhone[0])
    expect(first).toMatchObject({ address: '127.0.0.1', sessionId: expect.any(String) })
  })

  test('is exported whole, as JSON lines and as CSV, like what a search finds', async () => {
    // Real time: records carry that of the database.
    const query = { verb: 'device.', to: new Date().toISOString() }
    const found = await each(query)
    const lines = Buffer.from(await admin.bytes(ExportAudit, { query })).toString()
    expect(
      lines
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toEqual(found)
    const csv = await ask(admin, 'GET', `/api/audit/export?format=csv&verb=device.&to=${query.to}`)
    expect(csv.headers.get('content-type')).toBe('text/csv; charset=utf-8')
    expect(csv.headers.get('content-disposition')).toBe('attachment; filename="audit.csv"')
    const rows = String(csv.body).trimEnd().split('\r\n')
    expect(rows).toHaveLength(found.length + 1)
    expect(rows[0]).toMatch(/^at,service,actor,verb,target/)
    expect(rows[1]).toContain(present(found[0]).target)
  })

  test('shows a tenant its own records alone, and members none', async () => {
    const elsewhere = await somebodyElsewhere(platform)
    const own = await elsewhere.call(ListAudit)
    expect(new Set(own.items.map(({ tenantId, verb }) => `${tenantId} ${verb}`))).toEqual(
      new Set([`${elsewhere.tenantId} session.sign_in`]),
    )
    const { tenantId } = alice.user
    expect(await ask(elsewhere, 'GET', `/api/audit?tenantId=${tenantId}`)).toMatchObject({
      ...{ status: 403, body: { code: 'foreign_tenant' } },
    })
    expect(await ask(elsewhere, 'GET', `/api/audit/export?tenantId=${tenantId}`)).toMatchObject({
      ...{ status: 403, body: { code: 'foreign_tenant' } },
    })
    const theirs = await each({ tenantId: elsewhere.tenantId })
    expect(theirs.map(({ verb }) => verb)).toEqual(own.items.map(({ verb }) => verb))
    for (const path of ['/api/audit', '/api/audit/export']) {
      expect((await ask(alice.client, 'GET', path)).status).toBe(403)
    }
  })
})

test('what the platform does by itself is on record as its own', async () => {
  await until('a pooled phone to be free', async () => {
    const asked = await ask(alice.client, 'POST', '/api/allocations', { body: { durationMinutes: 5 } })
    if (asked.status !== 202) return false
    allocationId = asked.body.data.allocation.id
    await ended(alice.client, asked.body.data.sagaId)
    return true
  })
  await platform.books.query(
    "update scheduler.allocations set expires_at = now() - interval '1 second' where id = $1",
    [allocationId],
  )
  const entry = await until('the sweep to have ended it', async () => {
    const { items } = await admin.call(ListAudit, {
      query: { target: allocationId, verb: 'allocation.release' },
    })
    return items[0]
  })
  expect(entry).toMatchObject({ actor: 'system:scheduler.expiry', reason: 'expired', requestId: null })
})
