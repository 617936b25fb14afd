import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { announce, findRunning, withdraw } from './lock.ts'

let dataDir: string

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'lock-'))
})
afterEach(() => rm(dataDir, { recursive: true, force: true }))

test('who announced itself is found, until it withdraws', async () => {
  expect(await findRunning(dataDir)).toBeUndefined()
  await announce(dataDir, 'http://127.0.0.1:1')
  expect(await findRunning(dataDir)).toMatchObject({ pid: process.pid, url: 'http://127.0.0.1:1' })
  expect(await readdir(dataDir)).toEqual(['server.json'])
  await withdraw(dataDir)
  expect(await findRunning(dataDir)).toBeUndefined()
})

test('a stranger with the pid of one that was killed is not taken for it', async () => {
  await announce(dataDir, 'http://127.0.0.1:1')
  const path = join(dataDir, 'server.json')
  const announced = JSON.parse(await readFile(path, 'utf8'))
  await writeFile(path, JSON.stringify({ ...announced, started: 'another boot/1' }))
  expect(await findRunning(dataDir)).toBeUndefined()
})

test('an announcement that names no process is said in one line', async () => {
  await writeFile(join(dataDir, 'server.json'), '{"pid":1}')
  await expect(findRunning(dataDir)).rejects.toThrow(/^.*server\.json cannot be read: it names no process$/)
})
