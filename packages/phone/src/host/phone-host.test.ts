import { once } from 'node:events'
import { access, mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { connectAdb, newKey } from '../adb/client-fixture.ts'
import { openFixtureAndroid } from './fixture-android.ts'
import type { CreatePhoneInput, FaultRule, PhoneEvent } from './host-api.ts'
import { openPhoneHost, type PhoneHostClient, PhoneHostError } from './phone-host-client.ts'
import { type RunningHost, runHost } from './run-host.ts'

const mine = newKey()
const ID = '0198aaaa-0000-7000-8000-000000000001'
let root: string
let running: RunningHost
let host: PhoneHostClient

async function open(): Promise<void> {
  const socketPath = join(root, 'run', 'host.sock')
  running = await runHost({
    dir: join(root, 'host'),
    socketPath,
    openAndroid: openFixtureAndroid,
    log: () => undefined,
  })
  host = openPhoneHost({ socketPath })
}

async function close(): Promise<void> {
  await host.close()
  await running.close()
}

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'host-'))
  await open()
})

afterEach(async () => {
  await close()
  await rm(root, { recursive: true, force: true })
})

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

async function phone(
  change: Partial<CreatePhoneInput> & { bootMs?: number } = {},
): Promise<CreatePhoneInput> {
  const { bootMs = 0, ...rest } = change
  const id = rest.id ?? ID
  return {
    id,
    name: `cloudphone-test-${id}`,
    labels: { 'cloudphone.device': id },
    profile: {
      ...{ width: 360, height: 640, dpi: 160, androidVersion: '11', model: 'Pixel', cpuCores: 2 },
      ...{ memoryMb: 2048, storageMb: 4096, bootMs },
    },
    adb: { host: '127.0.0.1', port: await freePort() },
    adbKeys: [mine.publicKey],
    ...rest,
  }
}

async function started(change: Parameters<typeof phone>[0] = {}): Promise<number> {
  const spec = await phone(change)
  await host.create(spec)
  await host.start(spec.id, { wait: 'boot' })
  return spec.adb.port
}

async function history(since = 0): Promise<PhoneEvent[]> {
  return await Array.fromAsync(host.events({ since, follow: false }))
}

async function eventually(type: PhoneEvent['type'], since = 0): Promise<PhoneEvent> {
  for await (const event of host.events({ since })) if (event.type === type) return event
  throw new Error('the events ended')
}

async function refusal(call: Promise<unknown>): Promise<Record<string, unknown>> {
  const error = await call.then(
    () => undefined,
    (failure: unknown) => failure,
  )
  expect(error).toBeInstanceOf(PhoneHostError)
  const { code, status, retryable } = error as PhoneHostError
  return { code, status, retryable }
}

async function rules(...list: (Partial<FaultRule> & Pick<FaultRule, 'op' | 'kind'>)[]): Promise<void> {
  await host.setFaults({ seed: 1, rules: list.map((rule) => ({ probability: 1, ...rule })) })
}

describe('life of a phone', () => {
  test('create, start, boot, stop, start, destroy', async () => {
    const spec = await phone({ bootMs: 1 })
    expect(await host.create(spec)).toMatchObject({ id: ID, state: 'created', generation: 0, adb: spec.adb })
    expect(await host.start(ID)).toMatchObject({ generation: 1 })
    expect(await host.start(ID, { wait: 'boot' })).toMatchObject({ state: 'running', generation: 1 })
    const adb = await connectAdb(spec.adb.port, [mine])
    expect(await adb.getProp('sys.boot_completed')).toBe('1')
    expect((await host.get(ID)).connections).toBe(1)
    expect(await host.stop(ID)).toMatchObject({ state: 'stopped', exitReason: 'requested' })
    await adb.disconnected
    await expect(connectAdb(spec.adb.port, [mine])).rejects.toThrow('ECONNREFUSED')
    expect(await host.stop(ID)).toMatchObject({ state: 'stopped' })
    expect(await host.start(ID, { wait: 'boot' })).toMatchObject({ generation: 2, exitReason: null })
    await host.destroy(ID)
    await host.destroy(ID)
    await expect(access(join(root, 'host', 'phones', ID))).rejects.toThrow('ENOENT')
    expect(await refusal(host.get(ID))).toEqual({ code: 'phone_not_found', status: 404, retryable: false })
    expect((await history()).map(({ type, generation, reason }) => [type, generation, reason])).toEqual([
      ['phone.created', 0, null],
      ['phone.started', 1, 'requested'],
      ['phone.booted', 1, null],
      ['phone.stopped', 1, 'requested'],
      ['phone.started', 2, 'requested'],
      ['phone.booted', 2, null],
      ['phone.stopped', 2, 'requested'],
      ['phone.destroyed', 2, 'requested'],
    ])
  })

  test('a wipe switches the phone off and leaves nothing of its users; the phone itself stays', async () => {
    const port = await started()
    const { seq } = await host.info()
    const dir = join(root, 'host', 'phones', ID)
    await host.setPhoneFaults(ID, {
      seed: 1,
      rules: [{ op: 'wipe', kind: 'fail', probability: 1, times: 1 }],
    })
    await mkdir(join(dir, 'files', 'sdcard'), { recursive: true })
    await writeFile(join(dir, 'files', 'sdcard', 'secret.txt'), 'mine')
    expect(await refusal(host.wipe(ID))).toMatchObject({ code: 'wipe_failed', retryable: true })
    expect(await readdir(dir)).toContain('files')
    expect(await host.wipe(ID)).toEqual({ erased: 1, residue: [] })
    expect((await readdir(dir)).sort()).toEqual(['faults.json', 'phone.json'])
    expect(await host.get(ID)).toMatchObject({ state: 'stopped', exitReason: 'requested', generation: 1 })
    expect(await host.wipe(ID)).toEqual({ erased: 0, residue: [] })
    expect(await host.start(ID, { wait: 'boot' })).toMatchObject({ generation: 2 })
    await connectAdb(port, [mine])
    expect((await history(seq)).map(({ type }) => type)).toEqual([
      ...['phone.stopped', 'phone.wiped', 'phone.wiped', 'phone.started', 'phone.booted'],
    ])
  })

  test('a wipe that hangs ends with the phone', async () => {
    await started()
    await rules({ op: 'wipe', kind: 'hang' })
    const hanging = refusal(host.wipe(ID))
    while ((await host.faults()).counts[0]?.hits !== 1);
    await host.destroy(ID)
    expect(await hanging).toMatchObject({ code: 'wipe_interrupted' })
  })

  test('create is idempotent by id, also at the same time; another port is a conflict', async () => {
    const spec = await phone()
    const views = await Promise.all(Array.from({ length: 8 }, () => host.create(spec)))
    expect(new Set(views.map(({ createdAt }) => createdAt)).size).toBe(1)
    const other = await phone()
    expect(await refusal(host.create(other))).toEqual({ code: 'phone_exists', status: 409, retryable: false })
    const sameName = { ...other, id: '0198aaaa-0000-7000-8000-000000000002' }
    expect(await refusal(host.create(sameName))).toMatchObject({ code: 'name_in_use', status: 409 })
    expect((await history()).length).toBe(1)
  })

  test('what does not belong into a request is refused', async () => {
    const spec = await phone()
    const invalid = { code: 'invalid_request', status: 400, retryable: false }
    for (const change of [
      { extra: 1 },
      { adb: { host: '0.0.0.0', port: 1234 } },
      { id: '../../etc' },
      { adbKeys: ['AAAA'] },
      { profile: { ...spec.profile, width: 1e9 } },
    ]) {
      expect(
        await refusal(host.create({ ...spec, ...change } as CreatePhoneInput)),
        JSON.stringify(change),
      ).toEqual(invalid)
    }
    expect(await refusal(host.get('nonsense'))).toEqual(invalid)
  })

  test('a port in use says so, and the phone can be started when it is free', async () => {
    const blocker = createServer().listen(0, '127.0.0.1')
    await once(blocker, 'listening')
    const { port } = blocker.address() as AddressInfo
    await host.create(await phone({ adb: { host: '127.0.0.1', port } }))
    expect(await refusal(host.start(ID))).toEqual({ code: 'port_in_use', status: 409, retryable: false })
    expect(await host.get(ID)).toMatchObject({ state: 'created', generation: 0 })
    blocker.close()
    await once(blocker, 'close')
    expect(await host.start(ID, { wait: 'boot' })).toMatchObject({ state: 'running' })
  })

  test('a stop during the boot ends it; who waits for the boot is told', async () => {
    await host.create(await phone({ bootMs: 600_000 }))
    const waiting = refusal(host.start(ID, { wait: 'boot' }))
    await eventually('phone.started')
    await host.stop(ID)
    expect(await waiting).toEqual({ code: 'boot_interrupted', status: 409, retryable: true })
  })

  test('replaced adb keys cut the connections of the old ones and survive a restart', async () => {
    const port = await started()
    const adb = await connectAdb(port, [mine])
    const next = newKey()
    expect(await host.setAdbKeys(ID, [next.publicKey])).toMatchObject({ connections: 0 })
    await adb.disconnected
    await close()
    await open()
    await host.start(ID, { wait: 'boot' })
    const again = await connectAdb(port, [next])
    await again.close()
  })

  test('a reboot from inside is a new start at the same port', async () => {
    const port = await started()
    const { seq } = await host.info()
    const adb = await connectAdb(port, [mine])
    await adb.createSocket('reboot:')
    await adb.disconnected
    const event = await eventually('phone.booted', seq)
    expect(event.generation).toBe(2)
    expect((await history(seq)).map(({ type, reason }) => [type, reason])).toEqual([
      ['phone.started', 'reboot'],
      ['phone.booted', null],
    ])
    const again = await connectAdb(port, [mine])
    await again.close()
  })

  test('a crash cuts everything; with a restart policy the phone comes back', async () => {
    const port = await started()
    const adb = await connectAdb(port, [mine])
    expect(await host.crash(ID, 'kernel panic')).toMatchObject({
      state: 'crashed',
      exitReason: 'kernel panic',
    })
    await adb.disconnected
    expect(await refusal(host.crash(ID, 'again'))).toMatchObject({ code: 'phone_not_started', status: 409 })
    const id = '0198aaaa-0000-7000-8000-000000000002'
    await started({ id, restart: 'on-failure' })
    const { seq } = await host.info()
    await host.crash(id, 'kernel panic')
    expect(await eventually('phone.booted', seq)).toMatchObject({ phoneId: id, generation: 2 })
  })

  test('lists by labels', async () => {
    await host.create(await phone({ labels: { pool: 'a', 'cloudphone.device': 'x=y' } }))
    expect((await host.list({ labels: { pool: 'a', 'cloudphone.device': 'x=y' } })).phones).toHaveLength(1)
    expect((await host.list({ labels: { pool: 'b' } })).phones).toEqual([])
    expect(await host.info()).toMatchObject({ phones: { created: 1, running: 0 }, seq: 1, pid: process.pid })
  })
})

describe('faults', () => {
  test('fail, too_many_requests and slow on create', async () => {
    const spec = await phone()
    await rules(
      {
        op: 'create',
        kind: 'too_many_requests',
        delayMs: 3000,
        times: 1,
        match: { name: 'cloudphone-test-*' },
      },
      { op: 'create', kind: 'fail', times: 1 },
      { op: 'create', kind: 'slow', delayMs: 1 },
    )
    const error = await host.create(spec).catch((failure: unknown) => failure)
    expect(error).toMatchObject({
      code: 'too_many_requests',
      status: 429,
      retryable: true,
      retryAfterMs: 3000,
    })
    expect(await refusal(host.create(spec))).toEqual({ code: 'create_failed', status: 500, retryable: true })
    expect(await readdir(join(root, 'host', 'phones'))).toEqual([])
    expect(await host.create(spec)).toMatchObject({ state: 'created' })
    expect((await host.faults()).counts.map(({ hits }) => hits)).toEqual([1, 1, 1])
    await close()
    await open()
    expect((await host.faults()).counts.map(({ hits }) => hits)).toEqual([1, 1, 1])
  })

  test('a create that hangs is ended by the deletion, and leaves nothing', async () => {
    await rules({ op: 'create', kind: 'hang' })
    const hanging = refusal(host.create(await phone()))
    while ((await host.faults()).counts[0]?.hits !== 1);
    await host.destroy(ID)
    expect(await hanging).toMatchObject({ code: 'create_interrupted' })
    expect((await host.list()).phones).toEqual([])
  })

  test('a stuck boot stays booting, a failing one crashes', async () => {
    await rules({ op: 'boot', kind: 'stuck', times: 1 }, { op: 'boot', kind: 'fail' })
    await host.create(await phone())
    await host.start(ID)
    while ((await host.faults()).counts[0]?.hits !== 1);
    expect((await host.get(ID)).state).toBe('booting')
    await host.stop(ID)
    expect(await refusal(host.start(ID, { wait: 'boot' }))).toMatchObject({ code: 'boot_interrupted' })
    expect(await host.get(ID)).toMatchObject({
      state: 'crashed',
      exitReason: expect.stringContaining('boot failed'),
    })
  })

  test('disappear takes the phone away without a word, also over a restart of the host', async () => {
    await started()
    const { seq } = await host.info()
    await host.stop(ID)
    await host.setPhoneFaults(ID, {
      seed: 1,
      rules: [{ op: 'start', kind: 'disappear', probability: 1, delayMs: 0 }],
    })
    await host.start(ID)
    while ((await host.list()).phones.length > 0);
    await close()
    await open()
    const types = (await history(seq)).map(({ type }) => type)
    expect(types).not.toContain('phone.destroyed')
    expect(types).not.toContain('phone.crashed')
  })

  test('crash after a delay, adb that refuses or flaps', async () => {
    const port = await started()
    await host.setPhoneFaults(ID, {
      seed: 1,
      rules: [
        { op: 'adb', kind: 'fail', probability: 1, times: 1 },
        { op: 'adb', kind: 'flap', probability: 1, times: 1, delayMs: 1500 },
      ],
    })
    await expect(connectAdb(port, [mine])).rejects.toThrow()
    const flapping = await connectAdb(port, [mine])
    await flapping.disconnected
    const steady = await connectAdb(port, [mine])
    await host.stop(ID)
    await steady.disconnected
    await rules({ op: 'start', kind: 'crash', delayMs: 1 })
    const { seq } = await host.info()
    await host.start(ID)
    expect(await eventually('phone.crashed', seq)).toMatchObject({ reason: 'injected fault' })
  })
})

describe('the door', () => {
  test('is open to its owner only', async () => {
    const mode = async (...path: string[]) => (await stat(join(root, ...path))).mode & 0o777
    expect(await mode('run')).toBe(0o700)
    expect(await mode('run', 'host.sock')).toBe(0o600)
    expect(await mode('host')).toBe(0o700)
    expect(await mode('host', 'events.ndjson')).toBe(0o600)
  })

  test('refuses a foreign Host header', async () => {
    const call = request({
      socketPath: join(root, 'run', 'host.sock'),
      path: '/v1/info',
      headers: { host: 'evil.example' },
    })
    call.end()
    const [response] = (await once(call, 'response')) as [{ statusCode: number; resume(): void }]
    response.resume()
    expect(response.statusCode).toBe(403)
  })

  test('answers 404 for what is not there and 410 for events that are gone', async () => {
    await expect(Array.fromAsync(host.events({ since: 99 }))).rejects.toMatchObject({
      code: 'events_gone',
      status: 410,
    })
    const call = request({
      socketPath: join(root, 'run', 'host.sock'),
      path: '/v2',
      headers: { host: 'localhost' },
    })
    call.end()
    const [response] = (await once(call, 'response')) as [
      { statusCode: number; headers: Record<string, string>; resume(): void },
    ]
    response.resume()
    expect([response.statusCode, response.headers['content-type']]).toEqual([
      404,
      'application/problem+json; charset=utf-8',
    ])
  })

  test('a client without a host, and one that gives up', async () => {
    const nobody = openPhoneHost({ socketPath: join(root, 'run', 'nobody.sock') })
    expect(await refusal(nobody.info())).toEqual({ code: 'host_unreachable', status: 503, retryable: true })
    await nobody.close()
    await rules({ op: 'create', kind: 'hang' })
    const patience = new AbortController()
    const waiting = host.create(await phone(), { signal: patience.signal })
    patience.abort(new Error('no patience'))
    await expect(waiting).rejects.toThrow('no patience')
  })

  test('a clean end stops the phones, and the next start knows it', async () => {
    await started()
    await close()
    await open()
    expect(await host.get(ID)).toMatchObject({ state: 'stopped', exitReason: 'host_shutdown' })
  })
})
