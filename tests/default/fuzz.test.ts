import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ask } from '../src/door.ts'
import { openSender, operationsOf, wrongWith } from '../src/fuzz.ts'
import { fuzz, fuzzSeed, fuzzTown } from '../src/fuzz-run.ts'
import { openPlatform, type TestPlatform } from '../src/platform.ts'

let platform: TestPlatform

beforeAll(async () => {
  platform = await openPlatform()
})
afterAll(() => platform?.close())

test('no route takes a field that it does not know, such as a role or a tenant', async () => {
  const operations = await operationsOf(platform.url)
  const withBody = operations.filter(({ json }) => json !== undefined)
  expect(withBody.length).toBeGreaterThan(15)
  for (const { id, method, path } of withBody) {
    const someones = path.replaceAll('{sagaId}', `device_creation-${randomUUID()}`)
    const answer = await ask(
      platform.client,
      method,
      someones.replaceAll(/\{\w+\}/g, () => randomUUID()),
      {
        body: { tenantId: randomUUID(), status: 'active', version: 1 },
      },
    )
    expect({ id, status: answer.status, code: answer.body.code }).toEqual({
      id,
      status: 400,
      code: 'invalid_request',
    })
    expect({ id, errors: JSON.stringify(answer.body.errors) }).toEqual({
      id,
      errors: expect.stringContaining('tenantId'),
    })
  }
})

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
