import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemIds } from '@cloudphone/contracts/id'
import { systemClock } from '@cloudphone/observe/clock'
import { openPhoneHost, type PhoneHostClient } from '@cloudphone/phone/host/phone-host-client'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type PhoneHostProcess, startPhoneHost } from '../../testing/phone-host-process.ts'
import { providerContract } from '../provider.contract.ts'
import type { Provider } from '../provider.ts'
import { openSimulatedProvider } from './provider.ts'

let folder: string
let process: PhoneHostProcess
let host: PhoneHostClient
let provider: Provider
let nextPort = 11_000 + (globalThis.process.pid % 9) * 100

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'simulated-'))
  process = await startPhoneHost(folder)
  host = openPhoneHost({ socketPath: process.socketPath })
  provider = openSimulatedProvider({ socketPath: process.socketPath, bootMs: 10, clock: systemClock })
})
afterAll(async () => {
  await provider?.close()
  await host?.close()
  await process?.[Symbol.asyncDispose]()
  await rm(folder, { recursive: true, force: true })
})

providerContract(() => ({
  provider,
  crash: async (deviceId) => void (await host.crash(deviceId, 'kernel panic')),
  failCreations: async (times) =>
    void (await host.setFaults({ seed: 1, rules: [{ op: 'create', kind: 'fail', probability: 1, times }] })),
  port: () => {
    nextPort += 1
    return nextPort
  },
}))

test('a host that is away is a reason to try again, and watching goes on when it is back', async () => {
  const ending = new AbortController()
  const hints = provider.watch(ending.signal)[Symbol.asyncIterator]()
  await hints.next()
  const whenBack = hints.next()
  await process.kill()
  await expect(provider.probe(systemIds.next<'device'>())).rejects.toMatchObject({ retryable: true })
  await process.restart()
  expect((await whenBack).done).toBe(false)
  ending.abort(new Error('enough'))
  await hints.return?.()
})
