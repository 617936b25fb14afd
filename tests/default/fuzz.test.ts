import { afterAll, beforeAll, expect, test } from 'vitest'
import { openSender, operationsOf, wrongWith } from '../src/fuzz.ts'
import { fuzz, fuzzSeed, fuzzTown } from '../src/fuzz-run.ts'
import { openPlatform, type TestPlatform } from '../src/platform.ts'

let platform: TestPlatform

beforeAll(async () => {
  platform = await openPlatform()
})
afterAll(() => platform?.close())

const runs = 300
const seed = fuzzSeed(4)

test(`${runs} requests of every kind get an answer that is a problem or is none (FUZZ_SEED=${seed})`, async () => {
  const operations = await operationsOf(platform.url)
  const statuses = await fuzz(await fuzzTown(platform.client), operations, { seed, runs })
  // It reaches what lies behind the checks, too.
  expect(statuses.get(200)).toBeGreaterThan(10)
  expect(statuses.get(400)).toBeGreaterThan(50)
  expect(statuses.get(404)).toBeGreaterThan(5)
})

test('an expectation that nobody can meet is passed over: Node answered it by a 417 without a word', async () => {
  const sender = openSender(platform.url)
  try {
    const asked = { operation: 'me', as: 'nobody', method: 'GET', path: '/api/auth/me', body: undefined }
    const answer = await sender.send({ ...asked, headers: { expect: '200-maybe' } }, undefined)
    expect([answer.status, wrongWith(answer)]).toEqual([401, undefined])
  } finally {
    sender.close()
  }
})
