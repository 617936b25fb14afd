import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { commandLine, identify, isAlive, type ProcessIdentity } from './process.ts'
import { acquireSupervisorLock, DataDirectoryLocked, supervisorOf } from './supervisor-lock.ts'

let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lock-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const acquire = () => acquireSupervisorLock(folder, '/the/data')

/** The identity of a process that has been killed. */
async function deadProcess(): Promise<ProcessIdentity> {
  const child = spawn(process.execPath, ['--eval', 'setInterval(() => {}, 1e6); process.stdout.write("up")'])
  await once(child.stdout, 'data')
  const identity = await identify(child.pid ?? 0)
  child.kill('SIGKILL')
  await once(child, 'exit')
  if (identity === null) throw new Error('The child was gone before it could be identified')
  return identity
}

test('one holds it, the next is told who, and after the release it is free', async () => {
  const lock = await acquire()
  await expect(acquire()).rejects.toThrow(
    `Cloudphone is already running on /the/data (process ${process.pid}): stop it, or choose another data directory`,
  )
  expect((await supervisorOf(folder))?.pid).toBe(process.pid)
  await lock.release()
  expect(await supervisorOf(folder)).toBeNull()
  await (await acquire()).release()
  expect(await readdir(folder)).toEqual(['supervisor.2.lock'])
})

test('of many that find a dead lock at the same moment, exactly one takes it', async () => {
  const dead = JSON.stringify(await deadProcess())
  for (let round = 0; round < 30; round += 1) {
    const [last = 'supervisor.1.lock'] = await readdir(folder)
    await writeFile(join(folder, last), dead)
    const results = await Promise.allSettled(Array.from({ length: 8 }, acquire))
    const won = results.filter((result) => result.status === 'fulfilled')
    expect(won).toHaveLength(1)
    for (const result of results) {
      if (result.status === 'rejected') expect(result.reason).toBeInstanceOf(DataDirectoryLocked)
    }
    expect(await readdir(folder)).toHaveLength(1)
  }
})

test('a contender that was asleep while others came and went does not get a second lock', async () => {
  // It saw number 1 dead; meanwhile 2 was taken and tidied away, and 3 is held.
  await acquire().then((lock) => lock.release())
  await acquire().then((lock) => lock.release())
  await acquire()
  expect(await readdir(folder)).toEqual(['supervisor.3.lock'])
  await expect(acquire()).rejects.toBeInstanceOf(DataDirectoryLocked)
})

test('a pid that has come round again is not the holder', async () => {
  await writeFile(
    join(folder, 'supervisor.4.lock'),
    JSON.stringify({ pid: process.pid, started: 'another boot/1' }),
  )
  await (await acquire()).release()
})

test('a damaged file does not lock for ever', async () => {
  await writeFile(join(folder, 'supervisor.1.lock'), '{"pid": 12')
  await (await acquire()).release()
})

test.runIf(process.platform === 'linux')('a zombie counts as dead', async () => {
  // A process whose parent never collects it: exec has replaced the shell by a sleep.
  const parent = spawn('sh', ['-c', 'sleep 60 & echo $!; exec sleep 60'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  try {
    const [text] = await once(parent.stdout.setEncoding('utf8'), 'data')
    const pid = Number(text)
    while (!(await commandLine(parent.pid ?? 0)).startsWith('sleep'));
    const identity = await identify(pid)
    expect(identity !== null && (await isAlive(identity))).toBe(true)
    process.kill(pid, 'SIGKILL')
    while ((await identify(pid)) !== null);
    // The kernel still knows the pid: what `kill -0` says is no proof of life.
    expect(process.kill(pid, 0)).toBe(true)
  } finally {
    parent.kill('SIGKILL')
  }
})
