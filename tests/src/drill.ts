import { randomUUID } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { ListDevices } from '@cloudphone/contracts/api/devices-api'
import { Doctor, type SagaView } from '@cloudphone/contracts/api/platform-api'
import type { Client } from '@cloudphone/sdk/client'
import { expect } from 'vitest'
import { ask, ended, quotaUsed } from './door.ts'
import type { PlatformHome } from './platform-process.ts'
import { until } from './until.ts'

/* A drill: the platform's process kills itself (SIGKILL) at a named point of a creation, is started again on the same data,
 * and must come to rest as if nothing had happened. */

/** Where the process dies, and what the creation must have come to after the next start. */
export interface Drill {
  readonly point: string
  /** `gone`: the provider fails for good, so that the kill meets a compensation. */
  readonly end: 'RUNNING' | 'gone'
}

/** Asks for a phone until there is an answer: what a client does that meets a server which has died. */
async function askUntilAnswered(home: PlatformHome, name: string, key: string) {
  return await until('the request to be answered', async () => {
    const answer = await ask(await home.client(), 'POST', '/api/devices', {
      body: { name, resolution: '360x640', dpi: 160 },
      headers: { 'idempotency-key': key },
    })
    return answer.status === 202
      ? (answer.body.data as { sagaId: string; device: { id: string } })
      : undefined
  })
}

/** Carries the drill out on a home where nothing runs, and leaves a platform that runs and is healthy. */
export async function carryOut(home: PlatformHome, { point, end }: Drill): Promise<SagaView> {
  const [key, name] = [randomUUID(), end === 'gone' ? 'doomed' : 'spared']
  const victim = await home.start({ CLOUDPHONE_CRASH_POINTS: `${point}=kill` })
  await home.host.setFaults({
    seed: 1,
    rules: [{ op: 'boot', kind: 'fail', probability: 1, match: { name: 'cloudphone-doomed-*' } }],
  })
  const asked = ask(await home.client(), 'POST', '/api/devices', {
    body: { name, resolution: '360x640', dpi: 160 },
    headers: { 'idempotency-key': key },
  }).catch(() => undefined)
  expect(await victim.exited).toEqual({ code: null, signal: 'SIGKILL' })
  await asked

  const run = await home.start()
  const { sagaId, device } = await askUntilAnswered(home, name, key)
  const client = await home.client()
  const saga = await ended(client, sagaId)
  expect(saga.status).toBe(end === 'gone' ? 'COMPENSATED' : 'COMPLETED')
  const answer = await ask(client, 'GET', `/api/devices/${device.id}`)
  expect(end === 'gone' ? answer.body.code : answer.body.data.status).toBe(
    end === 'gone' ? 'device_creation_failed' : 'RUNNING',
  )
  await atRest(home, client)
  await run.end('SIGTERM')
  return saga
}

/** Nothing leaks: phones, rows, ports, directories and quota are the same phones; every invariant holds. */
export async function atRest(home: PlatformHome, client: Client): Promise<void> {
  const rows = await Array.fromAsync(client.each(ListDevices))
  const ids = rows.map(({ id }) => id).sort()
  const admin = rows[0]?.userId
  await until('nothing but the phones of the rows to be left', async () => {
    const { phones } = await home.host.list()
    const same =
      phones
        .map(({ id }) => id)
        .sort()
        .join() === ids.join()
    const used = admin == null ? undefined : (await quotaUsed(client, admin)).devices
    return same && (used === undefined || used === ids.length)
  })
  expect((await readdir(join(home.dataDir, 'phones', 'phones'))).sort()).toEqual(ids)
  const held = await home.books.query(
    'select device_id as id, adb_port as port from devices.port_allocations',
  )
  expect(held.map(({ id }) => id).sort()).toEqual(ids)
  expect(new Set(held.map(({ port }) => port)).size).toBe(ids.length)
  const diagnosis = await until('every invariant to hold', async () => {
    const found = await client.call(Doctor)
    return found.healthy && found
  }).catch(async () => await client.call(Doctor))
  expect(diagnosis.reports.filter(({ holds }) => !holds)).toEqual([])
  await until('all that was told to have been heard', async () => (await untold(home)) === 0)
}

/** How many events are on their way: a process that dies at the first one it hears would meet them at its start. */
async function untold({ books }: PlatformHome): Promise<number> {
  const outboxes = ['users', 'devices', 'apps', 'scheduler'].map(
    (service) => `select from ${service}.event_outbox where status <> 'published'`,
  )
  const onTheirWay = [...outboxes, 'select from bus.bus_delivery'].join(' union all ')
  const [row] = await books.query(`select count(*)::int as events from (${onTheirWay}) e`)
  return Number(row?.events)
}
