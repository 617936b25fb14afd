import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, stat } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { generateAdbKey } from '@cloudphone/adb-client/adb-key'
import { ListUsage } from '@cloudphone/contracts/api/billing-api'
import { AddAdbKey, GetDevice } from '@cloudphone/contracts/api/devices-api'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { createPhone } from '../src/door.ts'
import { processesOf } from '../src/leavings.ts'
import { adbTo } from '../src/phone-use.ts'
import { executable, type PlatformHome, platformHome, type Run } from '../src/platform-process.ts'
import { until } from '../src/until.ts'

/* `cloudphone start` as a process: what it says, what it refuses, what it leaves and what it finds again. */

// Each starts processes of its own, and the machine may be busy.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

let home: PlatformHome
beforeAll(async () => {
  home = await platformHome()
})
afterAll(() => home?.close())

const oneLine = /^cloudphone: [^\n]+\n$/

describe('a start that cannot be', () => {
  test('for a wrong setting says so in one line and ends with 1, with nothing started', async () => {
    const { code, stdout, stderr } = await home.cloudphone(['start'], { GATEWAY_LIMIT_PER_SECOND: 'many' })
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(oneLine)
    expect(stderr).toContain('GATEWAY_LIMIT_PER_SECOND')
    await expect(stat(join(home.dataDir, 'postgres'))).rejects.toThrow('ENOENT')
    expect(await processesOf(home.folder)).toEqual([])
  })

  test('for a port in use names the port and what to do, and starts nothing', async () => {
    const port = Number(home.env.CLOUDPHONE_PORT_BASE) + 2
    const stranger = createServer()
    stranger.listen(port, '127.0.0.1')
    await once(stranger, 'listening')
    const { code, stderr } = await home.cloudphone(['start'])
    stranger.close()
    expect(code).toBe(1)
    expect(stderr).toMatch(oneLine)
    expect(stderr).toContain(`Port ${port} on 127.0.0.1 (for devices) is in use`)
    expect(stderr).toContain('--port-base')
    expect(await processesOf(home.folder)).toEqual([])
  })

  test('--help names every setting', async () => {
    const { code, stdout } = await home.cloudphone(['start', '--help'])
    expect(code).toBe(0)
    for (const word of [
      ...['--port-base', '--data-dir', '--services', '--host', '--log-level'],
      ...[
        'CLOUDPHONE_DATA_DIR',
        'CLOUDPHONE_PORT_BASE',
        'CLOUDPHONE_ADMIN_EMAIL',
        'CLOUDPHONE_ADMIN_PASSWORD',
      ],
      ...['CLOUDPHONE_SERVICES', 'CLOUDPHONE_HOST', 'CLOUDPHONE_LOG_LEVEL', 'DATABASE_URL', 'DEVICES_'],
    ]) {
      expect(stdout).toContain(word)
    }
  })

  test('Ctrl-C in the middle of a start stops what was started', async () => {
    const child = spawn(process.execPath, [executable, 'start'], {
      ...{ env: home.env, cwd: home.folder, stdio: ['ignore', 'pipe', 'pipe'] },
    })
    const said = text(child.stdout)
    await until('the database to start', async () => {
      return (await processesOf(home.folder)).some(({ command }) => /\/postgres -D/.test(command))
    })
    child.kill('SIGINT')
    const [code] = await once(child, 'exit')
    expect([code, await said]).toEqual([0, expect.stringContaining('Stopped.')])
    expect(await processesOf(home.folder)).toEqual([])
  })
})

describe('a platform that runs', () => {
  let run: Run
  const keysReady = generateAdbKey('test')

  test('says where it is, and the password once; its secrets are for its owner alone', async () => {
    const startedMs = performance.now()
    run = await home.start()
    expect(performance.now() - startedMs).toBeLessThan(20_000)
    const { email, password } = JSON.parse(await readFile(join(home.dataDir, 'credentials.json'), 'utf8'))
    expect(run.greeting[0]).toBe(`Cloudphone is ready at ${run.url}`)
    const greeting = run.greeting.join('\n')
    expect(greeting).toContain(email)
    expect(greeting).toContain('npx cloudphone demo')
    expect(password).toMatch(/^[\w-]{20,}$/)
    for (const name of ['credentials.json', 'service-secret.json', 'server.json']) {
      expect([name, ((await stat(join(home.dataDir, name))).mode & 0o777).toString(8)]).toEqual([name, '600'])
    }
    const page = await fetch(`${run.url}/api/openapi.json`)
    expect(await page.json()).toHaveProperty(['paths', '/api/devices'])
    expect((await fetch(`${run.url}/health/ready`)).status).toBe(200)
  })

  test('has its data directory for itself', async () => {
    const base = String(Number(home.env.CLOUDPHONE_PORT_BASE) + 10)
    const { code, stdout, stderr } = await home.cloudphone(['start'], { CLOUDPHONE_PORT_BASE: base })
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(oneLine)
    expect(stderr).toContain(home.dataDir)
    expect((await fetch(`${run.url}/health/ready`)).status).toBe(200)
  })

  test('stopped by SIGTERM leaves its phones; the next start finds all data and them', async () => {
    const client = await home.client()
    const keys = await keysReady
    await client.call(AddAdbKey, { body: { publicKey: keys.publicKey } })
    const phone = await createPhone(client, { name: 'stays' })
    await using session = await adbTo(phone, keys)
    expect(await run.end('SIGTERM')).toEqual({ code: 0, signal: null })
    const left = await processesOf(home.folder)
    expect(left.map(({ command }) => /packages\/phone\/src\/main\.ts/.test(command))).toEqual([true])
    expect((await session.run(['echo', 'alive'])).stdout).toBe('alive\n')

    const startedMs = performance.now()
    run = await home.start()
    expect(performance.now() - startedMs).toBeLessThan(15_000)
    // The password is not shown again, and the session of before is still good.
    const { password } = JSON.parse(await readFile(join(home.dataDir, 'credentials.json'), 'utf8'))
    expect(run.greeting.join('\n')).not.toContain(password)
    const found = await client.call(GetDevice, { params: { deviceId: phone.id } })
    expect(found).toMatchObject({ status: 'RUNNING', startedAt: phone.startedAt })
    expect((await session.run(['echo', 'still'])).stdout).toBe('still\n')
    expect(await home.host.get(phone.id)).toMatchObject({ state: 'running', generation: 1 })
  })

  test('stopped by Ctrl-C stops phones and PostgreSQL too; the next start brings the phones back', async () => {
    const client = await home.client()
    const keys = await keysReady
    const [phone] = (await home.host.list()).phones
    expect(await run.end('SIGINT')).toEqual({ code: 0, signal: null })
    expect(await processesOf(home.folder)).toEqual([])
    await expect(stat(join(home.dataDir, 'server.json'))).rejects.toThrow('ENOENT')

    run = await home.start()
    const params = { deviceId: GetDevice.params.shape.deviceId.parse(phone?.id) }
    const back = await until('the phone to be back', async () => {
      const now = await client.call(GetDevice, { params })
      return now.status === 'RUNNING' && now
    })
    await using session = await adbTo(back, keys)
    expect(await session.getProp('sys.boot_completed')).toBe('1')
    expect(await home.host.get(params.deviceId)).toMatchObject({ generation: 2 })
    const usage = await until('both runs to be metered', async () => {
      const { items } = await client.call(ListUsage, { query: { deviceId: params.deviceId } })
      return items.length === 2 && items
    })
    expect(usage.map(({ endTime }) => endTime !== null)).toEqual([false, true])
    const { code, stdout } = await home.cloudphone(['stop'])
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'stopped\n' })
    expect(await run.exited).toEqual({ code: 0, signal: null })
    expect(await processesOf(home.folder)).toEqual([])
    expect(await home.cloudphone(['stop'])).toMatchObject({ code: 1, stderr: expect.stringMatching(oneLine) })
  })
})
