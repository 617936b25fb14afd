import { once } from 'node:events'
import { ListRevocations, type Revocation } from '@cloudphone/contracts/api/users-api'
import { systemIds } from '@cloudphone/contracts/id'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { staticRegistry } from '@cloudphone/registry/registry'
import { type FakeClock, fakeClock } from '@cloudphone/testing/fake-clock'
import type { FastifyInstance } from 'fastify'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { bind, openHttpServer } from './http-server.ts'
import { common } from './problem.ts'
import { watchRevocations } from './revocation-watch.ts'
import type { RevocationChange, RevocationWatch } from './revocations.ts'
import { openServiceClient, type ServiceClient } from './service-client.ts'
import { openServiceTokens, openTokenVerifier } from './tokens.ts'

/** One look at the feed, which a test answers when it likes. */
interface Look {
  readonly after: string | undefined
  readonly wait: number
  answer(cursor: string, ...revocations: Revocation[]): void
  refuse(): void
}

const minuteMs = 60_000
const nobody = { userId: systemIds.next<'user'>(), sessionId: 'nobody' }
/** Of a users service over real HTTP, with nothing behind its feed but the tests. */
let client: ServiceClient
let users: FastifyInstance
let looks: Look[] = []
let arrivals = new EventTarget()
let clock: FakeClock
let watch: RevocationWatch | undefined

beforeAll(async () => {
  const secret = 'a secret of thirty-two characters'
  const serviceTokens = openServiceTokens({ secret, now: () => new Date() })
  const tokens = openTokenVerifier({ fetchKeys: async () => ({ keys: [] }), now: () => new Date() })
  const said = bind(ListRevocations, ({ query: { after, wait } }) => {
    const { promise, resolve, reject } = Promise.withResolvers<{
      cursor: string
      revocations: Revocation[]
    }>()
    looks.push({
      ...{ after, wait },
      answer: (cursor, ...revocations) => resolve({ cursor, revocations }),
      refuse: () => reject(common.service_unavailable({ service: 'users' })),
    })
    arrivals.dispatchEvent(new Event('look'))
    return promise
  })
  users = await openHttpServer(
    {
      ...{ service: 'users', log: silentLog(), metrics: openMetrics('users'), sharedMetrics: undefined },
      ...{ tokens, serviceTokens, idempotency: undefined, ready: async () => true, uploadLimitBytes: 0 },
    },
    [said],
  )
  const registry = staticRegistry()
  await registry.register('users', await users.listen({ host: '127.0.0.1', port: 0 }))
  client = openServiceClient({ self: 'gateway', registry, serviceTokens })
})
afterEach(async () => {
  await watch?.close()
  watch = undefined
})
afterAll(async () => {
  await client?.close()
  await users?.close()
})

function begin(): RevocationWatch {
  looks = []
  arrivals = new EventTarget()
  clock = fakeClock()
  watch = watchRevocations({ client, clock, log: silentLog() })
  return watch
}

async function nextLook(): Promise<Look> {
  while (looks.length === 0) await once(arrivals, 'look')
  return looks.shift() as Look
}

/** Begun, with nothing revoked so far. */
async function begun(): Promise<{ watch: RevocationWatch; changes: RevocationChange[] }> {
  const watch = begin()
  ;(await nextLook()).answer('1')
  await watch.known()
  const changes: RevocationChange[] = []
  watch.onChange((change) => changes.push(change))
  return { watch, changes }
}

test('what was revoked before the start is known before anybody is let in', async () => {
  const watch = begin()
  const user = systemIds.next<'user'>()
  const known = watch.known()
  const look = await nextLook()
  expect(look).toMatchObject({ after: undefined, wait: 0 })
  look.answer('7', { kind: 'session', id: 'ended' }, { kind: 'user', id: user, epoch: 3 })
  await known
  expect(watch.isRevoked({ ...nobody, sessionId: 'ended' })).toBe(true)
  expect(watch.isRevoked({ userId: user, sessionId: 'any', epoch: 2 })).toBe(true)
  expect(watch.isRevoked({ userId: user, sessionId: 'any' })).toBe(true)
  expect(watch.isRevoked({ userId: user, sessionId: 'any', epoch: 3 })).toBe(false)
  expect(watch.isRevoked(nobody)).toBe(false)
  expect(await nextLook()).toMatchObject({ after: '7', wait: 5 })
})

test('while the feed is away from the beginning, nobody is let in', async () => {
  const watch = begin()
  const known = watch.known()
  ;(await nextLook()).refuse()
  await expect(known).rejects.toMatchObject({ status: 503, code: 'service_unavailable' })
  await clock.whenSleeping(1)
  await clock.advance(250)
  ;(await nextLook()).answer('1')
  await watch.known()
})

test('a change is told to who listens, a change of keys as one', async () => {
  const { watch, changes } = await begun()
  ;(await nextLook()).answer('2', { kind: 'session', id: 'ended' })
  await clock.whenSleeping(1)
  expect(changes).toEqual([{ keys: false, missed: false }])
  expect(watch.isRevoked({ ...nobody, sessionId: 'ended' })).toBe(true)
  await clock.advance(50)
  ;(await nextLook()).answer('3', { kind: 'keys' })
  await clock.whenSleeping(1)
  expect(changes.slice(1)).toEqual([{ keys: true, missed: false }])
  await clock.advance(50)
  // That nothing happened is no change.
  ;(await nextLook()).answer('3')
  await nextLook()
  expect(changes).toHaveLength(2)
})

test('what is known stays in force while the feed is away; after ten minutes of silence nothing that is open is trusted', async () => {
  const { watch, changes } = await begun()
  ;(await nextLook()).answer('2', { kind: 'session', id: 'ended' })
  await clock.whenSleeping(1)
  await clock.advance(50)
  ;(await nextLook()).refuse()
  await clock.whenSleeping(1)
  expect(watch.isRevoked({ ...nobody, sessionId: 'ended' })).toBe(true)
  await clock.advance(11 * minuteMs)
  ;(await nextLook()).answer('2')
  await clock.whenSleeping(1)
  expect(changes.slice(1)).toEqual([{ keys: false, missed: true }])
})

test('of two epochs of a user the later one counts, in whatever order they are told; it is forgotten after a day', async () => {
  const { watch } = await begun()
  const userId = systemIds.next<'user'>()
  const isRevoked = (epoch: number) => watch.isRevoked({ userId, sessionId: 'any', epoch })
  for (const [cursor, epoch] of [
    ['2', 3],
    ['3', 2],
  ] as const) {
    ;(await nextLook()).answer(cursor, { kind: 'user', id: userId, epoch })
    await clock.whenSleeping(1)
    await clock.advance(50)
  }
  expect([1, 2, 3].map(isRevoked)).toEqual([true, true, false])
  await clock.advance(25 * 60 * minuteMs)
  ;(await nextLook()).answer('4', { kind: 'session', id: 'ended' })
  await clock.whenSleeping(1)
  expect([1, 2, 3].map(isRevoked)).toEqual([false, false, false])
})

test('a revocation is forgotten after a day, when no token of its time lives; one that was told again is not', async () => {
  const { watch } = await begun()
  const sessions = ['ended', 'ended again', 'ended lately'] as const
  const tell = async (cursor: string, ...ids: string[]): Promise<void> => {
    ;(await nextLook()).answer(cursor, ...ids.map((id) => ({ kind: 'session' as const, id })))
    await clock.whenSleeping(1)
    await clock.advance(50)
  }
  await tell('2', sessions[1], sessions[0])
  await clock.advance(13 * 60 * minuteMs)
  await tell('3', sessions[1])
  await clock.advance(13 * 60 * minuteMs)
  await tell('4', sessions[2])
  const revoked = sessions.map((sessionId) => watch.isRevoked({ ...nobody, sessionId }))
  expect(revoked).toEqual([false, true, true])
})
