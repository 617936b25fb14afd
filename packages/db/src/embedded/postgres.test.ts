import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { silentLog } from '@cloudphone/observe/log'
import { temporaryFolder } from '@cloudphone/testing/temporary-folder'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { withClient } from '../client.ts'
import type { DatabaseTarget } from '../target.ts'
import {
  type EmbeddedPostgres,
  type EmbeddedPostgresOptions,
  endOrphan,
  startEmbeddedPostgres,
} from './postgres.ts'
import { identify } from './process.ts'
import { DataDirectoryLocked } from './supervisor-lock.ts'

const isRoot = process.getuid?.() === 0
const isLinux = process.platform === 'linux'

let base: string
let project: string
let dataDir: string

beforeEach(async () => {
  base = await temporaryFolder('embedded-')
  project = join(base, 'project')
  dataDir = join(project, '.cloudphone')
  await mkdir(project)
})
afterEach(async () => {
  // Whatever a failed test has left running.
  await endOrphan(join(dataDir, 'postgres'))
  await rm(base, { recursive: true, force: true })
})

const start = (options: Partial<EmbeddedPostgresOptions> = {}): Promise<EmbeddedPostgres> =>
  startEmbeddedPostgres({
    dataDir,
    projectDir: project,
    sharedDir: join(base, 'shared'),
    durability: 'none',
    log: silentLog(),
    ...options,
  })

const query = (url: DatabaseTarget, statement: string) =>
  withClient(url, 'test', async (client) => (await client.query(statement)).rows)

const modeOf = async (path: string) => ((await stat(path)).mode & 0o777).toString(8)

/** A supervisor in a process of its own; answers it once PostgreSQL is up. */
async function superviseInChild() {
  const script = `
    import { startEmbeddedPostgres } from '${new URL('./postgres.ts', import.meta.url).href}'
    import { silentLog } from '@cloudphone/observe/log'
    const { adminUrl, pid, how } = await startEmbeddedPostgres({ ...JSON.parse(process.env.OPTIONS), log: silentLog() })
    process.stdout.write(JSON.stringify({ adminUrl, pid, how }))
    setInterval(() => {}, 1e6)
  `
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    cwd: new URL('../..', import.meta.url),
    env: { ...process.env, OPTIONS: JSON.stringify({ dataDir, projectDir: project, durability: 'none' }) },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [text] = await once(child.stdout.setEncoding('utf8'), 'data')
  const server: Pick<EmbeddedPostgres, 'adminUrl' | 'pid' | 'how'> = JSON.parse(text)
  return {
    server,
    async kill() {
      child.kill('SIGKILL')
      await once(child, 'exit')
    },
  }
}

test('starts from nothing, keeps its data, and ends however often it is told to', async () => {
  const first = await start({ durability: 'full' })
  expect(first.how).toBe('started')
  expect(
    await query(
      first.adminUrl,
      `select current_setting('fsync') as fsync, current_setting('max_connections') as most`,
    ),
  ).toEqual([{ fsync: 'on', most: '400' }])
  await query(first.adminUrl, 'create table kept (id int)')
  await Promise.all([first.stop(), first.stop()])
  await first.stop()
  expect(await identify(first.pid)).toBeNull()

  const second = await start({ durability: 'full' })
  expect(await query(second.adminUrl, 'select * from kept')).toEqual([])
  await second.stop()
})

test('nobody else on the machine can connect or read the password', async () => {
  await using server = await start()
  const settings = await query(
    server.adminUrl,
    `select current_setting('listen_addresses') as tcp, current_setting('unix_socket_directories') as socket`,
  )
  expect(settings[0].tcp).toBe('')
  expect(await modeOf(settings[0].socket.replaceAll('"', ''))).toBe('700')
  expect(await modeOf(join(server.dataDir, 'password'))).toBe('600')
  expect(await modeOf(server.dataDir)).toBe('700')
  const wrong = server.adminUrl.replace(/:[^:@]+@/, ':wrong@')
  await expect(query(wrong, 'select 1')).rejects.toThrow('password authentication failed')
})

test('a data directory in use is refused in one clear line', async () => {
  const supervisor = await superviseInChild()
  try {
    await expect(start()).rejects.toThrow(
      /^Cloudphone is already running on .*\.cloudphone \(process \d+\): stop it/,
    )
    await expect(start()).rejects.toBeInstanceOf(DataDirectoryLocked)
    expect(await query(supervisor.server.adminUrl, 'select 1 as up')).toEqual([{ up: 1 }])
  } finally {
    await supervisor.kill()
  }
  await (await start()).stop()
})

test('a server whose supervisor was killed runs on and is adopted', async () => {
  const supervisor = await superviseInChild()
  const { adminUrl, pid } = supervisor.server
  await withClient(adminUrl, 'survivor', async (survivor) => {
    await survivor.query('create table kept (id int)')
    await supervisor.kill()
    const adopted = await start()
    expect({ how: adopted.how, pid: adopted.pid, adminUrl: adopted.adminUrl }).toEqual({
      how: 'adopted',
      pid,
      adminUrl,
    })
    // The same connection still works: nothing was restarted.
    expect((await survivor.query('select * from kept')).rows).toEqual([])
    await adopted.stop()
  })
  expect(await identify(pid)).toBeNull()
  await using again = await start()
  expect(again.how).toBe('started')
})

test('when supervisor and server were both killed, the next start recovers what was committed', async () => {
  const supervisor = await superviseInChild()
  const { adminUrl, pid } = supervisor.server
  await query(adminUrl, 'create table kept (id int); insert into kept values (7)')
  await supervisor.kill()
  process.kill(pid, 'SIGKILL')
  await using again = await start()
  expect(again.how).toBe('started')
  expect(await query(again.adminUrl, 'select * from kept')).toEqual([{ id: 7 }])
})

test.each([
  ['dead', async () => 4_000_000],
  ['foreign', async () => process.pid],
])('a stale pid file that names a %s process does not stop the start', async (_, pidOf) => {
  const first = await start()
  await first.stop()
  const data = join(first.dataDir, 'data')
  await writeFile(
    join(data, 'postmaster.pid'),
    `${await pidOf()}\n${data}\n1\n5432\n/nowhere\n\n 1 1\nready\n`,
  )
  await using second = await start()
  expect(second.how).toBe('started')
  expect(await query(second.adminUrl, 'select 1 as up')).toEqual([{ up: 1 }])
})

test('an initdb that was killed halfway is begun again', async () => {
  const first = await start()
  await first.stop()
  const data = join(first.dataDir, 'data')
  await rm(data, { recursive: true })
  await mkdir(`${data}.new/base`, { recursive: true })
  await using second = await start()
  expect(await query(second.adminUrl, 'select 1 as up')).toEqual([{ up: 1 }])
})

test('a server that cannot start says why', async () => {
  const first = await start()
  await first.stop()
  await writeFile(join(first.dataDir, 'data', 'postgresql.conf'), 'shared_buffers = many\n')
  await expect(start()).rejects.toThrow(/ended while starting[\s\S]*shared_buffers/)
})

test('a path too long for a socket gets a short one', async () => {
  dataDir = join(project, 'a-folder-with-a-long-name-'.repeat(4), '.cloudphone')
  await using server = await start()
  expect(Buffer.byteLength(join(server.dataDir, 'run', '.s.PGSQL.5432'))).toBeGreaterThan(107)
  const directory = new URL(server.adminUrl).searchParams.get('host') ?? ''
  expect(directory.length).toBeLessThan(90)
  expect(await modeOf(directory)).toBe('700')
  expect(await query(server.adminUrl, 'select 1 as up')).toEqual([{ up: 1 }])
  await server.stop()
  await rm(directory, { recursive: true })
})

test.runIf(isRoot && isLinux)(
  'root in a 0700 home: the data lies in the shared folder, and stays there',
  async () => {
    await chmod(project, 0o700)
    const first = await start()
    expect(first.dataDir).toMatch(/shared\/data-[0-9a-f]{12}$/)
    expect(first.note).toContain(`cannot enter ${dataDir}`)
    expect(first.note).toContain(first.dataDir)
    await query(first.adminUrl, 'create table kept (id int)')
    const status = await readFile(`/proc/${first.pid}/status`, 'utf8')
    expect(/^Uid:\s+(\d+)/m.exec(status)?.[1]).not.toBe('0')
    await first.stop()

    await chmod(project, 0o755)
    const second = await start()
    expect(second.dataDir).toBe(first.dataDir)
    expect(await query(second.adminUrl, 'select * from kept')).toEqual([])
    await second.stop()
  },
)

test.runIf(isRoot && isLinux)(
  'data that has become unreachable is not replaced by an empty server',
  async () => {
    await (await start()).stop()
    await chmod(project, 0o700)
    await expect(start()).rejects.toThrow(/cannot be reached by user \w+/)
  },
)
