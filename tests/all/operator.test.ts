import { type AuditEntry, ListAudit } from '@cloudphone/contracts/api/audit-api'
import { CreateDevice } from '@cloudphone/contracts/api/devices-api'
import { ListDeadLetters } from '@cloudphone/contracts/api/operator-api'
import { GetSaga, ListSagas, type SagaView } from '@cloudphone/contracts/api/platform-api'
import type { Client } from '@cloudphone/sdk/client'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { ask, createPhone, ended, newPerson, type Person } from '../src/door.ts'
import { somebodyElsewhere } from '../src/elsewhere.ts'
import { type PlatformHome, platformHome, type Said } from '../src/platform-process.ts'
import { until } from '../src/until.ts'

/* What an operator can do by hand when something is stuck: by API and by CLI, and on the record. */

// It starts processes, and the machine may be busy.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

let platform: PlatformHome
let operator: Person
let member: Person
/** An operator of another tenant. */
let stranger: Client
/** On their way while the dead letters are looked at: a lease of 10 s and the quick retries have to pass. */
let stuck: Promise<[SagaView, SagaView]>

beforeAll(async () => {
  platform = await platformHome()
  await platform.start()
  const admin = await platform.client()
  operator = await newPerson(admin, 'operator')
  member = await newPerson(admin)
  stranger = await somebodyElsewhere({ books: platform.books, client: admin }, { role: 'operator' })
  await platform.host.setFaults({
    seed: 3,
    rules: [
      { op: 'boot', kind: 'stuck', probability: 1, match: { name: 'cloudphone-stuck-*' } },
      { op: 'destroy', kind: 'fail', probability: 1, match: { name: 'cloudphone-stuck-*' } },
    ],
  })
  stuck = Promise.all([stuckCreation('stuck one'), stuckCreation('stuck two')])
  // Whoever waits for it hears of a failure.
  stuck.catch(() => undefined)
})
afterAll(() => platform?.close())

/** The CLI as a process, signed in as the operator. */
const cloudphone = (...args: string[]): Promise<Said> =>
  platform.cloudphone(args, {
    CLOUDPHONE_ADMIN_EMAIL: operator.email,
    CLOUDPHONE_ADMIN_PASSWORD: operator.password,
  })

/** A command that must succeed, and its one JSON document. */
async function json(...args: string[]) {
  const { code, stdout, stderr } = await cloudphone(...args, '--json')
  expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' })
  return JSON.parse(stdout)
}

const audit = async (client: Client, target: string): Promise<AuditEntry[]> => {
  const { items } = await client.call(ListAudit, { query: { target } })
  return [...items]
}

/** A creation whose phone boots no more and cannot be destroyed either: turned back, it gets stuck. */
const stuckCreation = async (name: string): Promise<SagaView> => {
  const { sagaId } = await member.client.call(CreateDevice, {
    body: { name, resolution: '360x640', dpi: 160 },
  })
  await sagaWhere(sagaId, ({ currentStep }) => currentStep === 'START_DEVICE')
  const turned = await verb(operator.client, sagaId, 'turn-back', { reason: 'it will never boot' })
  expect({ status: turned.status, code: turned.body.code }).toEqual({ status: 200 })
  return await sagaWhere(sagaId, ({ status }) => status === 'COMPENSATION_STUCK')
}
const sagaWhere = async (sagaId: string, is: (saga: SagaView) => boolean): Promise<SagaView> =>
  await until(`${sagaId} to come so far`, async () => {
    const saga = await operator.client.call(GetSaga, { params: { sagaId } })
    return is(saga) && saga
  })
const verb = (client: Client, sagaId: string, name: string, body: unknown = {}) =>
  ask(client, 'POST', `/api/sagas/${sagaId}/${name}`, { body })

describe('dead letters', () => {
  const queue = 'billing-service.device-started'

  /** A phone whose start billing could not take, four times: its event is dead. */
  const poisoned = async (name: string) => {
    const phone = await createPhone(member.client, { name })
    return await until('the event to be given up', async () => {
      // The waits between the tries are not what this is about.
      await platform.books.query('update bus.bus_delivery set due_at = now() where queue = $1', [queue])
      const { items } = await operator.client.call(ListDeadLetters, { query: { queue } })
      const ids = await eventsOf(phone.id)
      return items.find(({ eventId }) => ids.includes(eventId))
    })
  }
  const eventsOf = async (deviceId: string): Promise<unknown[]> => {
    const rows = await platform.books.query('select id from devices.event_outbox where aggregate_id = $1', [
      deviceId,
    ])
    return rows.map(({ id }) => id)
  }
  const appliedTimes = async (eventId: string): Promise<number> => {
    const rows = await platform.books.query(
      'select 1 from billing.inbox where consumer = $1 and event_id = $2',
      [queue, eventId],
      'cloudphone_billing',
    )
    return rows.length
  }
  const breakBilling = () =>
    platform.books.query(
      'alter table billing.usage_records add constraint out_of_order check (false) not valid',
      [],
      'cloudphone_billing',
    )
  const mendBilling = () =>
    platform.books.query(
      'alter table billing.usage_records drop constraint out_of_order',
      [],
      'cloudphone_billing',
    )
  const replay = (client: Client, path: string, body: unknown = {}) =>
    ask(client, 'POST', `/api/dead-letters/${path}`, { body })

  test('is inspected, replayed under its own id when the cause is gone, and applied once', async () => {
    await breakBilling()
    const letter = await poisoned('unbilled')
    const shown = await ask(operator.client, 'GET', `/api/dead-letters/${letter.id}`)
    expect(shown.body.data).toMatchObject({
      ...letter,
      ...{ service: 'billing', queue, eventType: 'device.started', attempts: 4 },
      error: expect.stringContaining('out_of_order'),
      envelope: { specversion: '1.0', id: letter.eventId, data: { deviceName: 'unbilled' } },
      history: [{ what: 'died', at: letter.diedAt, attempts: 4, actor: null }],
    })
    expect(Date.parse(shown.body.data.firstFailedAt)).toBeLessThanOrEqual(Date.parse(letter.diedAt))

    const early = await replay(operator.client, `${letter.id}/replay`, { reason: 'hoping' })
    expect(early.body.data).toMatchObject({ outcome: 'replayed', queue, eventId: letter.eventId })
    const second = await until('it to die again', async () => {
      await platform.books.query('update bus.bus_delivery set due_at = now() where queue = $1', [queue])
      const { items } = await operator.client.call(ListDeadLetters, { query: { queue } })
      return items.find(({ eventId }) => eventId === letter.eventId)
    })
    const history = (await ask(operator.client, 'GET', `/api/dead-letters/${second.id}`)).body.data.history
    expect(history).toMatchObject([
      { what: 'died', error: letter.error, at: letter.diedAt },
      { what: 'replayed', reason: 'hoping', actor: operator.user.id },
      { what: 'died', at: second.diedAt },
    ])

    await mendBilling()
    expect(await appliedTimes(letter.eventId)).toBe(0)
    const done = await json('dead-letters', 'replay', second.id, '--reason', 'mended')
    expect(done).toMatchObject({ outcome: 'replayed', eventId: letter.eventId })
    await until('it to be applied', async () => (await appliedTimes(letter.eventId)) === 1)
    const twice = await replay(operator.client, `${second.id}/replay`)
    expect(twice).toMatchObject({
      status: 200,
      body: { data: { outcome: 'already_replayed', queue, eventId: letter.eventId } },
    })
    const records = await platform.books.query(
      `select 1 from billing.usage_records where device_id = $1`,
      [shown.body.data.envelope.subject],
      'cloudphone_billing',
    )
    expect(records).toHaveLength(1)
    expect(await audit(operator.client, second.id)).toMatchObject([
      {
        ...{ verb: 'dead_letter.replay', actor: operator.user.id, service: 'billing', reason: 'mended' },
        ...{ outcome: 'done', detail: `event ${letter.eventId} is back in ${queue}` },
      },
    ])
  })

  test('all of a queue are replayed at once, by who may', async () => {
    await breakBilling()
    const made = await Promise.all([poisoned('first of two'), poisoned('second of two')])
    const letters = made.toSorted((one, other) => (one.id < other.id ? -1 : 1))
    const { items } = await operator.client.call(ListDeadLetters, { query: { queue } })
    expect(items.map(({ id }) => id)).toEqual(letters.map(({ id }) => id))
    const page = await operator.client.call(ListDeadLetters, { query: { queue, limit: 1 } })
    const rest = await operator.client.call(ListDeadLetters, {
      query: { queue, limit: 1, cursor: page.nextCursor ?? '' },
    })
    expect([page, rest].flatMap((one) => one.items)).toEqual(items)
    expect(rest.nextCursor).toBeNull()
    await mendBilling()

    expect((await replay(member.client, 'replay')).status).toBe(403)
    expect((await replay(member.client, `${letters[0]?.id}/replay`)).status).toBe(403)
    expect(await replay(operator.client, 'replay', { queue: 'no.such-queue' })).toMatchObject({
      status: 422,
      body: { code: 'unknown_queue', detail: expect.stringContaining(queue) },
    })
    const elsewhere = { queue: 'billing-service.device-stopped' }
    expect((await replay(operator.client, 'replay', elsewhere)).body.data).toEqual({
      replayed: 0,
      queues: [],
    })
    const [listed, shown] = await Promise.all([
      cloudphone('dead-letters', 'list'),
      cloudphone('dead-letters', 'show', letters[0]?.id ?? ''),
    ])
    for (const { id } of letters) expect(listed.stdout).toContain(`${id}  ${queue}  device.started`)
    expect(shown.stdout).toMatch(/"deviceName": "(first|second) of two"/)
    const all = await json('dead-letters', 'replay-all', '--reason', 'mended')
    expect(all).toEqual({ replayed: 2, queues: [{ queue, replayed: 2 }] })
    for (const { eventId } of letters) {
      await until('it to be applied', async () => (await appliedTimes(eventId)) === 1)
    }
    expect((await replay(operator.client, 'replay')).body.data).toEqual({ replayed: 0, queues: [] })
    expect(await replay(operator.client, `${letters[1]?.id}/replay`)).toMatchObject({
      body: { data: { outcome: 'already_replayed' } },
    })
    expect(await audit(operator.client, queue)).toMatchObject([
      {
        ...{ verb: 'dead_letters.replay_all', actor: operator.user.id, reason: 'mended' },
        ...{ outcome: 'done', detail: '2 put back' },
      },
    ])
  })

  test('an id that is unknown, or none, is said to be so', async () => {
    const nobodys = '01890000-0000-7000-8000-000000000000'
    expect(await ask(operator.client, 'GET', `/api/dead-letters/${nobodys}`)).toMatchObject({
      ...{ status: 404, body: { code: 'dead_letter_not_found' } },
    })
    expect(await replay(operator.client, `${nobodys}/replay`)).toMatchObject({
      ...{ status: 404, body: { code: 'dead_letter_not_found' } },
    })
    expect((await ask(operator.client, 'GET', '/api/dead-letters/nonsense')).status).toBe(400)
    const cursor = Buffer.from('nonsense').toString('base64url')
    expect((await ask(operator.client, 'GET', `/api/dead-letters?cursor=${cursor}`)).status).toBe(400)
    expect((await ask(member.client, 'GET', '/api/audit')).status).toBe(403)
  })
})

describe('sagas', () => {
  const nobodys = 'device_creation-01890000-0000-7000-8000-000000000000'

  const undos = (saga: SagaView) =>
    saga.timeline.filter(({ direction, step }) => direction === 'undo' && step === 'CREATE_PROVIDER_DEVICE')

  let mended: SagaView
  let given: SagaView
  beforeAll(async () => {
    ;[mended, given] = await stuck
  })

  test('a stuck saga is listed as such, and shows what was tried and who turned it back', async () => {
    const { items } = await operator.client.call(ListSagas, { query: { stuck: 'true' } })
    expect(items.map(({ sagaId }) => sagaId).toSorted()).toEqual([mended.sagaId, given.sagaId].toSorted())
    expect(mended).toMatchObject({
      errorMessage: 'it will never boot',
      userId: member.user.id,
      endedAt: null,
      ...{ currentStep: 'START_DEVICE', standsAt: 'CREATE_PROVIDER_DEVICE' },
    })
    expect(undos(mended).map(({ status, actor }) => [status, actor])).toEqual(Array(4).fill(['failed', null]))
    expect(mended.timeline.find(({ status }) => status === 'turned_back')).toMatchObject({
      ...{ step: 'START_DEVICE', error: 'it will never boot', actor: operator.user.id },
    })
  })

  test('it is nobody’s but the tenant’s operators’, and what does not fit is refused with the reason', async () => {
    const { sagaId } = mended
    const skip = { step: 'CREATE_PROVIDER_DEVICE', reason: 'a try' }
    const refusals: [Client, string, string, unknown, number, string][] = [
      [stranger, sagaId, 'retry', {}, 404, 'saga_not_found'],
      [stranger, sagaId, 'skip', skip, 404, 'saga_not_found'],
      [stranger, sagaId, 'turn-back', { reason: 'a try' }, 404, 'saga_not_found'],
      [member.client, sagaId, 'retry', {}, 403, 'forbidden'],
      [member.client, sagaId, 'skip', skip, 403, 'forbidden'],
      [member.client, sagaId, 'turn-back', { reason: 'a try' }, 403, 'forbidden'],
      [operator.client, nobodys, 'retry', {}, 404, 'saga_not_found'],
      [operator.client, sagaId, 'skip', { step: skip.step }, 400, 'invalid_request'],
      [operator.client, sagaId, 'skip', { ...skip, reason: ' ' }, 400, 'invalid_request'],
      [operator.client, sagaId, 'skip', { ...skip, step: 'START_DEVICE' }, 409, 'illegal_saga_operation'],
      [operator.client, sagaId, 'turn-back', { reason: 'twice' }, 409, 'illegal_saga_operation'],
    ]
    const before = undos(await operator.client.call(GetSaga, { params: { sagaId } }))
    for (const [client, id, name, body, status, code] of refusals) {
      const answer = await verb(client, id, name, body)
      expect({ name, body, status: answer.status, code: answer.body.code }).toEqual({
        ...{ name, body, status, code },
      })
      if (status === 409)
        expect(answer.body.detail).toMatch(/stands at CREATE_PROVIDER_DEVICE|cannot turn back/)
    }
    expect(undos(await operator.client.call(GetSaga, { params: { sagaId } }))).toEqual(before)
    expect((await stranger.call(ListSagas, { query: { stuck: 'true' } })).items).toEqual([])
    const tried = await audit(operator.client, sagaId)
    expect(tried.map((entry) => [entry.verb, entry.outcome])).toEqual([
      ['saga.turn_back', 'refused'],
      ['saga.skip', 'refused'],
      ['saga.turn_back', 'done'],
    ])
    expect(await audit(stranger, sagaId)).toEqual([])
  })

  test('skipped with a reason it goes on with the next undo and ends; the reason stays with who gave it', async () => {
    const { sagaId } = given
    const reason = 'the phone is removed by hand'
    const skipped = await json(
      'sagas',
      'skip',
      sagaId,
      '--step',
      'CREATE_PROVIDER_DEVICE',
      '--reason',
      reason,
    )
    expect(skipped).toMatchObject({ sagaId })
    const saga = await ended(operator.client, sagaId)
    expect(saga.status).toBe('COMPENSATED')
    expect(saga.steps[1]).toMatchObject({ name: 'CREATE_PROVIDER_DEVICE', status: 'skipped' })
    expect(undos(saga).at(-1)).toMatchObject({ status: 'skipped', error: reason, actor: operator.user.id })
    const [entry] = await audit(operator.client, sagaId)
    expect(entry).toMatchObject({
      ...{ verb: 'saga.skip', actor: operator.user.id, service: 'devices', reason, outcome: 'done' },
      detail: 'COMPENSATION_STUCK, skipped CREATE_PROVIDER_DEVICE',
    })
    const [people, again] = await Promise.all([
      cloudphone('sagas', 'show', sagaId),
      verb(operator.client, sagaId, 'retry'),
    ])
    expect(people.stdout).toMatch(new RegExp(`undo CREATE_PROVIDER_DEVICE +\\d+ +skipped +${reason}`))
    expect(people.stdout).toContain(operator.user.id)
    expect(again).toMatchObject({ status: 409, body: { detail: expect.stringContaining('has ended') } })
  })

  test('retried when the cause is mended it ends', async () => {
    const { sagaId } = mended
    await platform.host.setFaults({ seed: 3, rules: [] })
    const answer = await verb(operator.client, sagaId, 'retry', { reason: 'the provider is mended' })
    expect({ status: answer.status, detail: answer.body.detail }).toEqual({ status: 200 })
    const saga = await ended(operator.client, sagaId)
    expect(saga.status).toBe('COMPENSATED')
    expect(undos(saga).at(-1)).toMatchObject({ status: 'done', actor: null })
    expect(saga.timeline.find(({ status }) => status === 'retried')).toMatchObject({
      ...{ direction: 'undo', actor: operator.user.id },
    })
    expect((await audit(operator.client, sagaId))[0]).toMatchObject({
      ...{ verb: 'saga.retry', actor: operator.user.id, reason: 'the provider is mended', outcome: 'done' },
    })
    expect((await operator.client.call(ListSagas, { query: { stuck: 'true' } })).items).toEqual([])
  })
})

describe('the command line', () => {
  test('shows the audit, newest first, as much as was wanted', async () => {
    // Of sagas only: the command line's own sign-ins are on record as well.
    const { items } = await operator.client.call(ListAudit, { query: { limit: 2, verb: 'saga.' } })
    const [entries, people] = await Promise.all([
      json('audit', '--verb', 'saga.', '--limit', '2'),
      cloudphone('audit', '--verb', 'saga.', '--limit', '2'),
    ])
    expect(entries).toEqual(items)
    expect(people).toMatchObject({ code: 0, stderr: expect.stringContaining('--all') })
    for (const { target, actor } of items) {
      expect(people.stdout).toContain(target)
      expect(people.stdout).toContain(actor)
    }
  })

  test('says its version and gives an example of each verb', async () => {
    const [version, help] = await Promise.all([
      cloudphone('--version'),
      cloudphone('sagas', 'skip', '--help'),
    ])
    expect(version).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) })
    expect(help.stdout).toContain('$ cloudphone sagas skip device_creation-')
  })

  test('tells every refusal in JSON too', async () => {
    const refusals: [string, string[]][] = [
      ['saga_not_found', ['sagas', 'retry', 'device_creation-1']],
      ['invalid_request', ['dead-letters', 'show', 'nonsense']],
      ['cli_error', ['apps', 'upload', '/nowhere.apk']],
      ['cli_usage', ['sagas', 'skip']],
      ['unreachable', ['audit', '--url', 'http://127.0.0.1:9']],
    ]
    const said = await Promise.all(refusals.map(([, args]) => cloudphone(...args, '--json')))
    expect(said.map(({ code, stdout, stderr }) => [JSON.parse(stderr).code, code, stdout])).toEqual(
      refusals.map(([errorCode]) => [errorCode, 1, '']),
    )
    for (const { stderr } of said) {
      expect(JSON.parse(stderr)).toMatchObject({ success: false, detail: expect.stringMatching(/.{5}/) })
    }
  })
})
