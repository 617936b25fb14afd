import { setTimeout as rest } from 'node:timers/promises'
import { Me } from '@cloudphone/contracts/api/users-api'
import type { Client } from '@cloudphone/sdk/client'
import { type ConsulServer, startConsul } from '@cloudphone/testing/consul'
import { type RedisServer, startRedis } from '@cloudphone/testing/redis'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ask, newPerson } from '../src/door.ts'
import { type Part, type PlatformParts, platformParts } from '../src/platform-parts.ts'
import { until } from '../src/until.ts'

/* Two gateways and two users services, a process each, that know each other by a real Consul alone and count together in a
 * real Redis: any of these may go, and no request fails that somebody is there to answer. */

const limit = 100_000
let consul: ConsulServer
let redis: RedisServer
let parts: PlatformParts
let users: Part[]
let gateways: Part[]
let admin: Client

beforeAll(async () => {
  ;[consul, redis] = await Promise.all([startConsul(), startRedis()])
  parts = await platformParts({
    ...{ CONSUL_URL: consul.url, REDIS_URL: redis.url },
    ...{
      GATEWAY_LIMIT_PER_SECOND: '0',
      GATEWAY_LIMIT_PER_10_SECONDS: '0',
      GATEWAY_LIMIT_PER_MINUTE: String(limit),
    },
  })
  // The first makes the schema and the account.
  users = [await parts.start('users')]
  users.push(await parts.start('users'))
  gateways = [await parts.start('gateway')]
  gateways.push(await parts.start('gateway'))
  await until('all of them to be in Consul', async () => (await inRotation('user-service')).length === 2)
  admin = await parts.client(door(0))
})
afterAll(async () => {
  await parts?.close()
  await consul?.close()
  await redis?.close()
})

const door = (index: number): Part => {
  const gateway = gateways[index]
  if (gateway === undefined) throw new Error(`there is no gateway ${index}`)
  return gateway
}

/** Addresses of a service's instances whose checks pass, as Consul says. */
async function inRotation(name: string): Promise<string[]> {
  const response = await fetch(`${consul.url}/v1/health/service/${name}?passing=1`)
  const found = (await response.json()) as { Service: { Address: string; Port: number } }[]
  return found.map(({ Service }) => `http://${Service.Address}:${Service.Port}`).sort()
}

async function metric(part: Part, pattern: RegExp): Promise<number> {
  const page = await (await fetch(`${part.url}/metrics`)).text()
  return page
    .split('\n')
    .filter((line) => pattern.test(line))
    .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
}
const served = (part: Part) => metric(part, /^http_request.*_count\{.*\/api\/auth\/me/)

/** Asks both gateways who one is, again and again, while `during` goes on; returns how many answers there were and the bad ones. */
async function underLoad(during: () => Promise<void>): Promise<{ answers: number; bad: unknown[] }> {
  const token = await admin.accessToken()
  const headers = { authorization: `Bearer ${token}` }
  const bad: unknown[] = []
  let answers = 0
  let goesOn = true
  const loops = [0, 1, 0, 1].map(async (index) => {
    while (goesOn) {
      try {
        const answer = await ask(door(index).url, 'GET', Me.path, { headers })
        if (answer.status !== 200) bad.push({ status: answer.status, body: answer.body })
      } catch (error) {
        bad.push(error)
      }
      answers += 1
      // Real time: a steady load that leaves the machine to those who are under test.
      await rest(10)
    }
  })
  try {
    await during()
  } finally {
    goesOn = false
    await Promise.all(loops)
  }
  return { answers, bad }
}

test('a users service that is killed costs no request, and is out of rotation with its next check', async () => {
  const [dies, lives] = [users[1] as Part, users[0] as Part]
  const { answers, bad } = await underLoad(async () => {
    await until('both to serve', async () => (await served(dies)) > 0 && (await served(lives)) > 0)
    await dies.kill()
    await until(
      'Consul to notice',
      async () => (await inRotation('user-service')).join() === lives.url,
      30_000,
    )
    const before = await served(lives)
    await until('the other to serve on', async () => (await served(lives)) > before + 20)
  })
  expect(bad).toEqual([])
  expect(answers).toBeGreaterThan(50)
  users = [lives]
})

test('without Consul and Redis for 30 s requests go where they went; when they are back, empty, all are found again, and new ones too', async () => {
  const { bad } = await underLoad(async () => {
    await Promise.all([consul.kill(), redis.kill()])
    const [one] = users
    if (one === undefined) throw new Error('no users service is left')
    const before = await served(one)
    // Real time: longer than anything that is remembered of either.
    await rest(30_000)
    expect(await served(one)).toBeGreaterThan(before + 100)
    await Promise.all([consul.start(), redis.start()])
    await until('the processes to register again', async () => {
      const names = ['user-service', 'api-gateway']
      const found = await Promise.all(names.map(inRotation))
      return found.map((list) => list.length).join() === '1,2'
    })
    const another = await parts.start('users')
    users.push(another)
    await until('the new one to serve', async () => (await served(another)) > 0)
  })
  expect(bad).toEqual([])
})

/** What is left to somebody new after a request at each gateway in turn. */
async function left(): Promise<number[]> {
  const person = await newPerson(admin)
  const headers = { authorization: `Bearer ${await person.client.accessToken()}` }
  const found: number[] = []
  for (const { url } of gateways) {
    const answer = await ask(url, 'GET', Me.path, { headers })
    expect(answer.status).toBe(200)
    found.push(Number(answer.headers.get('ratelimit-remaining')))
  }
  return found
}
const together = [limit - 1, limit - 2]
const apart = [limit - 1, limit - 1]

test('both gateways count together; without Redis each for itself, and together again when it is back', async () => {
  expect(await left()).toEqual(together)
  process.kill(redis.pid(), 'SIGSTOP')
  try {
    expect(await left()).toEqual(apart)
  } finally {
    process.kill(redis.pid(), 'SIGCONT')
  }
  await until('both to count together', async () => (await left()).join() === together.join())
  await redis.kill()
  expect(await left()).toEqual(apart)
  await redis.start()
  await until('both to count together', async () => (await left()).join() === together.join())
})
