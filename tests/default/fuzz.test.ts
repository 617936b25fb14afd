import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { anyCase, type FuzzRoom, fuzzParameters, openFuzzRoom } from '../src/fuzz/room.ts'
import { openPlatform, type TestPlatform } from '../src/platform.ts'

/* Three hundred requests that nobody wrote down, each from a seed that is printed; `tests/all/fuzz.test.ts` has them all. */

let platform: TestPlatform
let room: FuzzRoom

beforeAll(async () => {
  platform = await openPlatform()
  room = await openFuzzRoom(platform)
}, 180_000)
afterAll(async () => {
  room?.judge.close()
  await platform?.close()
})

test('whatever is sent to whichever route, the answer is one that the contract knows', async () => {
  const property = fc.asyncProperty(anyCase(room), (one) => room.judge.try(one))
  await fc.assert(property, fuzzParameters(300))
  for (const { address } of platform.server.services) {
    expect((await fetch(`${address}/health/ready`)).status).toBe(200)
  }
}, 120_000)
