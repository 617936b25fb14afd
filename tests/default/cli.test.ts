import { randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer, text } from 'node:stream/consumers'
import { connectAdb } from '@cloudphone/adb-client/adb-client'
import { generateAdbKey } from '@cloudphone/adb-client/adb-key'
import { ListAudit } from '@cloudphone/contracts/api/audit-api'
import { AddAdbKey } from '@cloudphone/contracts/api/devices-api'
import { CreateApiKey, DeleteApiKey } from '@cloudphone/contracts/api/users-api'
import { present } from '@cloudphone/testing/present'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { createPhone, newPerson } from '../src/door.ts'
import { colours, decodePng } from '../src/picture.ts'
import { type PlatformHome, platformHome, type Said } from '../src/platform-process.ts'

/* The CLI as a process, against a platform that runs as another. */

// Each starts processes of its own, and the machine may be busy.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

let home: PlatformHome
/** The account of the first start, from credentials.json: whom the CLI is without any sign-in. */
let admin: { email: string; password: string }

beforeAll(async () => {
  // A reconciler that looks once in a while leaves the doctor something to find.
  home = await platformHome({ DEVICES_RECONCILE_MS: '600000' })
  await home.start()
  admin = JSON.parse(await readFile(join(home.dataDir, 'credentials.json'), 'utf8'))
})
afterAll(() => home?.close())

/** Runs a command that must succeed, and gives its one JSON document. */
async function json(...args: string[]) {
  const { code, stdout, stderr } = await home.cloudphone([...args, '--json'])
  expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' })
  return JSON.parse(stdout)
}

const oneLine = /^cloudphone: [^\n]+\n$/

test('login keeps a session for its owner alone; whoami says who one is; logout ends it', async () => {
  const email = 'cli@example.test'
  const made = await json(
    'users',
    'create',
    '--email',
    email,
    '--password',
    'a long enough one',
    '--name',
    'Cli',
    '--role',
    'operator',
  )
  expect(made).toMatchObject({ email, role: 'operator' })
  const wrong = await home.cloudphone(['login', '--email', email, '--password', 'not this one'])
  expect(wrong).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(oneLine) })
  expect(wrong.stderr).toContain('invalid_credentials')
  expect(await json('login', '--email', email, '--password', 'a long enough one')).toMatchObject({ email })
  const kept = join(home.env.XDG_CONFIG_HOME ?? '', 'cloudphone', 'sessions.json')
  expect(((await stat(kept)).mode & 0o777).toString(8)).toBe('600')
  expect(await readFile(kept, 'utf8')).not.toContain('a long enough one')
  expect(await json('whoami')).toMatchObject({ email, role: 'operator' })
  expect(await json('logout')).toEqual({ signedOut: true })
  expect(await json('whoami')).toMatchObject({ email: admin.email, role: 'admin' })
})

test('the audit log is searched, and exported to a file that is not there yet', async () => {
  const since = ['audit', '--verb', 'user.', '--since', '1h']
  const email = 'audited@example.test'
  const password = 'a long enough one'
  const made = await json('users', 'create', '--email', email, '--password', password, '--name', 'Audited')
  const [entry] = await json(...since, '--limit', '1')
  expect(entry).toMatchObject({ verb: 'user.create', target: made.id, before: null, after: { email } })
  expect(await json('audit', '--target', made.id, '--request', entry.requestId)).toEqual([entry])
  expect(await json(...since, '--until', '30m')).toEqual([])
  const [lines, csv] = [join(home.folder, 'audit.ndjson'), join(home.folder, 'audit.csv')]
  expect(await json(...since, '--target', made.id, '--export', lines)).toEqual({ file: lines })
  expect(JSON.parse(await readFile(lines, 'utf8'))).toEqual(entry)
  await json(...since, '--export', csv)
  expect(await readFile(csv, 'utf8')).toContain(made.id)
  const again = await home.cloudphone([...since, '--export', lines])
  expect(again).toMatchObject({ code: 1, stderr: expect.stringContaining('EEXIST') })
  expect(await readFile(lines, 'utf8')).not.toContain(password)
})

test('a phone is made, shown, photographed, stopped, started, metered and deleted', async () => {
  const made = await json(
    'devices',
    'create',
    'by cli',
    '--resolution',
    '360x640',
    '--dpi',
    '160',
    '--cpu',
    '1',
  )
  const { id } = made.device
  expect(made.device).toMatchObject({ name: 'by cli', status: 'RUNNING', cpuCores: 1, resolution: '360x640' })
  const [shown, listed, saga] = await Promise.all([
    json('devices', 'show', id),
    json('devices', 'list'),
    json('sagas', 'show', made.sagaId),
  ])
  expect(shown).toEqual(made.device)
  expect(listed).toEqual([made.device])
  expect(saga).toMatchObject({ status: 'COMPLETED', currentStep: 'START_DEVICE', stepIndex: 4 })
  const png = join(home.folder, 'shot.png')
  await json('devices', 'screenshot', id, png)
  expect(await decodePng(await readFile(png))).toMatchObject({ width: 360, height: 640 })
  const table = await home.cloudphone(['devices', 'list'])
  expect(table.stdout).toMatch(
    new RegExp(`${id} .*by cli .*RUNNING .*127\\.0\\.0\\.1:${shown.adbPort} .*dedicated`),
  )

  expect(await json('devices', 'stop', id)).toMatchObject({ deviceId: id })
  expect((await json('devices', 'show', id)).status).toBe('STOPPED')
  await json('devices', 'delete', id)
  expect(await json('devices', 'list')).toEqual([])
  const gone = await home.cloudphone(['devices', 'show', id, '--json'])
  expect(gone).toMatchObject({ code: 1, stdout: '' })
  expect(JSON.parse(gone.stderr)).toMatchObject({ code: 'device_not_found', status: 404, success: false })
})

test('on a phone: programs with their exit codes, files there and back, fingers, apps, the log', async () => {
  const { device } = await json('devices', 'create', 'to use', '--resolution', '360x640', '--dpi', '160')
  const on = (...args: string[]) => home.cloudphone(['devices', ...args])
  const { id } = device
  expect(await on('shell', id, '--', 'echo', 'two  words', '$HOME')).toEqual({
    ...{ code: 0, stdout: 'two  words $HOME\n', stderr: '' },
  })
  expect(await on('shell', id, '--', 'ls', '/nothing')).toMatchObject({
    ...{ code: 1, stdout: '', stderr: expect.stringContaining('No such file') },
  })
  const [sent, fetched] = [join(home.folder, 'sent.bin'), join(home.folder, 'fetched.bin')]
  const content = randomBytes(300_000)
  await writeFile(sent, content)
  await json('devices', 'push', id, sent, '/sdcard/Music/a.bin')
  expect(await json('devices', 'ls', id, '/sdcard/Music')).toMatchObject([
    { name: 'a.bin', sizeBytes: 300_000 },
  ])
  // A transfer that broke: it goes on where it ended.
  await writeFile(`${fetched}.part`, content.subarray(0, 100_000))
  expect(await json('devices', 'pull', id, '/sdcard/Music/a.bin', fetched)).toMatchObject({
    sizeBytes: 300_000,
  })
  expect((await readFile(fetched)).equals(content)).toBe(true)
  await json('devices', 'open-app', id, 'com.android.settings')
  expect((await on('shell', id, '--', 'dumpsys', 'window')).stdout).toContain('com.android.settings')
  await json('devices', 'key', id, 'HOME')
  await json('devices', 'tap', id, '10', '10')
  expect(await on('tap', id, 'here', '10')).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('body.input.x'),
  })
  expect(await json('devices', 'apps', id)).toContainEqual(
    expect.objectContaining({ packageName: 'com.android.settings', isSystem: true }),
  )
  await on('shell', id, '--', 'log', '-t', 'Mine', 'seen')
  expect((await on('logcat', id, 'Mine:I', '*:S')).stdout).toMatch(/I Mine +: seen\n/)
  const log = await home.begin(['devices', 'logcat', id, '--follow', '--lines', '1', 'Mine:I', '*:S'])
  expect(log.firstLine).toContain('beginning of main')
  await log.end()
  await json('devices', 'delete', id)
})

test('adb goes through a tunnel to one’s own phone, until its key is taken back; nobody else’s does', async () => {
  const operator = await home.client()
  const [alice, bob] = [await newPerson(operator), await newPerson(operator)]
  const pair = await generateAdbKey('alice@test')
  const phone = await createPhone(alice.client)
  await alice.client.call(AddAdbKey, { body: { publicKey: pair.publicKey } })
  const { id, key } = await alice.client.call(CreateApiKey, { body: { name: 'tunnel' } })
  const tunnel = await home.begin(['adb', phone.id], { CLOUDPHONE_API_KEY: key })
  const port = Number(/^adb connect 127\.0\.0\.1:(\d+)$/.exec(tunnel.firstLine)?.[1])
  const [one, two] = await Promise.all(
    [1, 2].map(() => connectAdb({ host: '127.0.0.1', port, keys: [pair] })),
  )
  const session = present(one)
  expect(await session.getProp('sys.boot_completed')).toBe('1')
  const big = randomBytes(4 * 1024 * 1024)
  await session.push(Readable.from([big]), '/sdcard/big.bin')
  expect((await buffer(present(two).pull('/sdcard/big.bin'))).equals(big)).toBe(true)
  const stranger = await generateAdbKey('bob@test')
  await expect(connectAdb({ host: '127.0.0.1', port, keys: [stranger] })).rejects.toMatchObject({
    code: 'unauthorized',
  })
  const upgrade = async (token: string | undefined, path = `/api/devices/${phone.id}/adb`) => {
    const opening = request(`${operator.url}${path}`, {
      headers: {
        ...{ connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13' },
        'sec-websocket-key': Buffer.alloc(16).toString('base64'),
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
      },
    }).end()
    const [answer] = await once(opening, 'response')
    return [answer.statusCode, JSON.parse(await text(answer)).code]
  }
  expect(await upgrade(undefined)).toEqual([401, 'unauthenticated'])
  expect(await upgrade('nonsense')).toEqual([401, 'invalid_token'])
  expect(await upgrade(await bob.client.accessToken())).toEqual([403, 'device_forbidden'])
  expect(await upgrade(await alice.client.accessToken(), `/api/devices/${randomUUID()}/adb`)).toEqual([
    ...[404, 'device_not_found'],
  ])
  expect(await upgrade(await alice.client.accessToken(), '/api/devices/x/adb')).toEqual([404, 'not_found'])
  const { items } = await operator.call(ListAudit, { query: { target: phone.id, verb: 'device.adb_tunnel' } })
  expect(items.map(({ actor }) => actor)).toContain(alice.user.id)

  const gone = session.adb.disconnected
  await alice.client.call(DeleteApiKey, { params: { apiKeyId: id } })
  await gone
  expect(await tunnel.end()).toContain('closed by the platform: token_revoked')
  await json('devices', 'delete', phone.id)
})

describe('what cannot be', () => {
  const cases: [string, string[], RegExp][] = [
    ['an unknown id', ['devices', 'show', randomUUID()], /device_not_found/],
    ['an id that is none', ['devices', 'show', 'nonsense'], /^cloudphone: must be the UUID of a device\n$/],
    ['a value beyond the bounds', ['devices', 'create', 'x', '--cpu', '99'], /body\.cpuCores/],
    ['a value that is no number', ['devices', 'create', 'x', '--memory', 'much'], /body\.memoryMB/],
    ['a missing argument', ['devices', 'create'], /missing required argument 'name'/],
    ['an unknown command', ['phones'], /unknown command 'phones'/],
    ['an unknown option', ['devices', 'list', '--all'], /unknown option '--all'/],
    ['a platform that is not there', ['whoami', '--url', 'http://127.0.0.1:9'], /does not answer|bad port/],
    [
      'a wrong API key',
      ['whoami', '--api-key', 'cpk_wrong'],
      /invalid_api_key|invalid_token|unauthenticated/,
    ],
    [
      'a file that is not there',
      ['apps', 'upload', '/nowhere.apk'],
      /^cloudphone: \/nowhere\.apk cannot be read\n$/,
    ],
  ]
  const said = new Map<string, Promise<Said>>()
  // Side by side, two at a time: most of such a run is the start of its process.
  beforeAll(async () => {
    for (let at = 0; at < cases.length; at += 2) {
      await Promise.all(
        cases.slice(at, at + 2).map(async ([what, args]) => {
          const run = home.cloudphone(args)
          said.set(what, run)
          await run
        }),
      )
    }
  })
  test.each(cases)('%s ends with 1 and says why', async (what, _args, words) => {
    const { code, stdout, stderr } = (await said.get(what)) ?? { code: 0, stdout: '', stderr: '' }
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(words)
    expect(stderr).not.toMatch(/^\s+at /m)
    expect(stderr.split('\n').length).toBeLessThan(5)
  })
})

test('demo carries the whole journey through and reports it', async () => {
  const pictures = join(home.folder, 'pictures')
  await mkdir(pictures)
  const report = await json('demo', '--pictures', pictures)
  expect(report).toMatchObject({
    ...{ healthy: true, packageName: 'io.appium.settings', transfer: { bytes: 20_000_000 } },
    allocation: { released: 'RELEASED', fence: expect.any(Number) },
    notice: expect.stringMatching(/^设备故障：/),
    usage: { seconds: expect.any(Number), cost: expect.stringMatching(/^\d+\.\d+$/) },
  })
  expect(report.accepted.ms).toBeLessThan(5000)
  expect(report.pictures).toHaveLength(2)
  for (const file of report.pictures)
    expect(colours(await decodePng(await readFile(file)))).toBeGreaterThan(1000)
  expect(await json('devices', 'list')).toEqual([])
})

describe('doctor', () => {
  test('finds every invariant kept, and ends with 0', async () => {
    const { healthy, reports } = await json('doctor')
    expect(healthy).toBe(true)
    expect([...new Set(reports.map((one: { invariant: number }) => one.invariant))]).toEqual([
      1, 2, 3, 4, 5, 6, 7, 8, 9,
    ])
    const { stdout } = await home.cloudphone(['doctor'])
    expect(stdout).toContain('All invariants hold.')
  })

  test('names a phone that belongs to nobody, a port that is held by nobody, quota that is gone, and ends with 1', async () => {
    const { device } = await json('devices', 'create', 'whole', '--resolution', '360x640')
    const view = await home.host.get(device.id)
    const stray = randomUUID()
    // The reconciler would remove it, and may try.
    await home.host.setFaults({
      seed: 1,
      rules: [{ op: 'destroy', kind: 'fail', probability: 1, match: { name: 'cloudphone-stray-*' } }],
    })
    await home.host.create({
      ...{ id: stray, name: `cloudphone-stray-${stray}`, profile: view.profile },
      ...{ labels: { ...view.labels, 'cloudphone.device': stray }, adb: { host: '127.0.0.1', port: 9999 } },
    })
    await home.books.query('delete from devices.port_allocations where device_id = $1', [device.id])
    await home.books.query('update users.quotas set devices = devices + 1')
    const { code, stdout, stderr } = await home.cloudphone(['doctor', '--json'])
    expect({ code, stderr }).toEqual({ code: 1, stderr: '' })
    const { healthy, reports } = JSON.parse(stdout) as {
      healthy: boolean
      reports: { invariant: number; holds: boolean; culprits: { id: string; detail: string }[] }[]
    }
    expect(healthy).toBe(false)
    const broken = reports.filter(({ holds }) => !holds)
    expect([...new Set(broken.map(({ invariant }) => invariant))]).toEqual([1, 2, 3])
    const culprits = broken.flatMap((one) => one.culprits.map(({ id }) => `${one.invariant} ${id}`))
    expect(culprits).toContain(`1 ${stray}`)
    expect(culprits).toContain(`2 ${device.id}`)
    const people = await home.cloudphone(['doctor'])
    expect(people).toMatchObject({ code: 1, stdout: expect.stringContaining('An invariant is violated.') })
    expect(people.stdout).toContain(stray)
  })
})
