import { appendFile, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { EventLog } from './event-log.ts'

const event = {
  at: '2026-01-01T00:00:00.000Z',
  type: 'phone.started',
  phoneId: 'p',
  name: 'n',
  labels: {},
  reason: null,
  generation: 1,
} as const
let dir: string
let path: string

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'events-'))
  path = join(dir, 'events.ndjson')
})
afterEach(async () => await rm(dir, { recursive: true, force: true }))

describe('event log', () => {
  test('goes on counting after a restart, and leaves out a line that was cut off', async () => {
    const log = EventLog.open(path)
    log.append(event)
    log.append(event)
    log.close()
    await appendFile(path, '{"seq":3,"at":"20')
    const again = EventLog.open(path)
    expect(again.lastSeq).toBe(2)
    expect(again.append(event).seq).toBe(3)
    again.close()
    const third = EventLog.open(path)
    expect(third.after(0)?.map(({ seq }) => seq)).toEqual([1, 2, 3])
    third.close()
  })

  test('keeps the newest; a reader that asks for older ones, or for the future, must list again', async () => {
    const log = EventLog.open(path, { kept: 10 })
    for (let n = 0; n < 105; n += 1) log.append(event)
    expect(() => log.check(20)).toThrow('list the phones again')
    expect(() => log.check(106)).toThrow('list the phones again')
    log.check(105)
    log.check(95)
    expect(log.after(95)).toHaveLength(10)
    expect((await readFile(path, 'utf8')).split('\n').length).toBeLessThan(25)
    log.close()
    const again = EventLog.open(path, { kept: 10 })
    expect(again.lastSeq).toBe(105)
    expect(() => again.check(94)).toThrow()
    again.close()
  })

  test('a follower gets what is there, then what comes, and ends with the log', async () => {
    const log = EventLog.open(path)
    log.append(event)
    const seen: number[] = []
    const reader = (async () => {
      for await (const batch of log.follow(0, new AbortController().signal)) {
        seen.push(...batch.map(({ seq }) => seq))
        if (seen.length < 3) log.append(event)
        else log.close()
      }
    })()
    await reader
    expect(seen).toEqual([1, 2, 3])
  })
})
