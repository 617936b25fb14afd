import { platformRoutes } from '@cloudphone/contracts/api/platform-api'
import type { RunningService } from '@cloudphone/runtime/host'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { devices } from './service.ts'
import { type DevicesBed, openDevicesBed } from './testing/devices-bed.ts'

let bed: DevicesBed
let second: RunningService
beforeAll(async () => {
  bed = await openDevicesBed()
  second = await bed.town.start(devices)
})
afterAll(async () => await bed?.[Symbol.asyncDispose]())

test('two instances make twenty phones at once, share ports and loops, and keep one platform key', async () => {
  const alice = bed.neighbours.person('member')
  const first = bed.running
  const made = await Promise.all(
    Array.from({ length: 20 }, async (_none, index) => {
      bed.running = index % 2 === 0 ? first : second
      return await bed.create(alice)
    }),
  )
  const sagas = await Promise.all(made.map(async ({ sagaId }) => await bed.ended(alice, sagaId)))
  expect(sagas.map(({ status }) => status)).toEqual(made.map(() => 'COMPLETED'))
  const { data } = await bed.ask<{ adbPort: number; status: string }[]>(alice, 'GET', '/api/devices')
  expect(new Set(data.map(({ adbPort }) => adbPort)).size).toBe(20)
  const { rows } = await bed.database.pool.query('select count(*)::int as n from platform_adb_key')
  expect(rows).toEqual([{ n: 1 }])

  // Every crash is seen by one of them, once.
  const crashed = made.slice(0, 5).map(({ device }) => device.id)
  await Promise.all(crashed.map(async (id) => await bed.host.crash(id, 'kernel panic')))
  for (const id of crashed) {
    const events = await bed.until(`${id} to be back`, async () => {
      const told = (await bed.told(id)).map(({ type }) => type)
      return told.filter((type) => type === 'device.started').length === 2 && told
    })
    expect(events.filter((type) => type === 'device.failed')).toHaveLength(1)
  }
  const { reports } = await bed.scheduler.call(platformRoutes('devices').invariants)
  expect(reports.flatMap(({ culprits }) => culprits)).toEqual([])
})

test('a list is paged newest first, and nobody sees another tenant’s', async () => {
  const bob = bed.neighbours.person('member')
  const ids: string[] = []
  for (const name of ['one', 'two', 'three']) ids.unshift((await bed.create(bob, { name })).device.id)
  const seen: string[] = []
  let cursor = ''
  do {
    const response = await fetch(`${bed.running.address}/api/devices?limit=2${cursor}`, {
      headers: { authorization: `Bearer ${bob.token}` },
    })
    const page = (await response.json()) as { data: { id: string }[]; page: { nextCursor: string | null } }
    seen.push(...page.data.map(({ id }) => id))
    cursor = page.page.nextCursor === null ? '' : `&cursor=${page.page.nextCursor}`
  } while (cursor !== '')
  expect(seen).toEqual(ids)
  expect((await bed.ask(bob, 'GET', '/api/devices?cursor=bm90LWEtY3Vyc29y')).status).toBe(400)
})
