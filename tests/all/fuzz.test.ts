import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { casesOf, mutationsOf } from '../src/fuzz/cases.ts'
import { type FuzzRoom, fuzzParameters, openFuzzRoom } from '../src/fuzz/room.ts'
import { openPlatform, type TestPlatform } from '../src/platform.ts'

/* The whole fuzz: every operation of the OpenAPI document with everything that can be wrong about a request to it. */

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

test('every route answers every mutation by its contract', async () => {
  const faults: string[] = []
  const parameters = fuzzParameters(8)
  for (const operation of room.operations) {
    for (const mutation of mutationsOf(operation)) {
      const property = fc.asyncProperty(casesOf(operation, mutation, room.known), (one) =>
        room.judge.try(one),
      )
      // All of them are heard before the test fails.
      const result = await fc.check(property, { ...parameters, endOnFailure: true })
      if (result.failed)
        faults.push(
          `${operation.method} ${operation.path}, ${mutation}: ${String(result.errorInstance)} (path ${result.counterexamplePath})`,
        )
    }
  }
  const count = [...room.judge.seen.values()].reduce((sum, one) => sum + one, 0)
  console.log(`fuzz: ${count} answers, by status ${JSON.stringify([...room.judge.seen].sort())}`)
  for (const { address } of platform.server.services) {
    expect((await fetch(`${address}/health/ready`)).status).toBe(200)
  }
  expect(faults).toEqual([])
}, 900_000)
