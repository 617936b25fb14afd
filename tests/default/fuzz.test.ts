import { afterAll, beforeAll, expect, test } from 'vitest'
import { operationsOf } from '../src/fuzz.ts'
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
