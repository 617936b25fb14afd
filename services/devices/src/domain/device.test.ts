import { generateAdbKey } from '@cloudphone/adb-client/adb-key'
import { DeviceStatus } from '@cloudphone/contracts/device'
import { type DeviceId, systemIds } from '@cloudphone/contracts/id'
import { expect, test } from 'vitest'
import { parseAdbKeyLine } from './adb-key.ts'
import { accessOf, containerName, idOfRequest, moves, restartDelayMs, wholeSeconds } from './device.ts'

const tenant = systemIds.next<'tenant'>()
const [owner, holder, stranger] = [
  systemIds.next<'user'>(),
  systemIds.next<'user'>(),
  systemIds.next<'user'>(),
]
const dedicated = { tenant_id: tenant, user_id: owner, holder_user_id: null, allocation_id: null }
const held = {
  tenant_id: tenant,
  user_id: null,
  holder_user_id: holder,
  allocation_id: systemIds.next<'allocation'>(),
}
const free = { ...held, holder_user_id: null, allocation_id: null }

test.each([
  ['its owner', dedicated, { userId: owner, any: false }, 'granted'],
  ['a stranger', dedicated, { userId: stranger, any: false }, 'not_yours'],
  ['an operator', dedicated, { userId: stranger, any: true }, 'granted'],
  ['its holder', held, { userId: holder, any: false }, 'granted'],
  ['who does not hold it', held, { userId: stranger, any: false }, 'not_allocated'],
  ['anybody while it is free', free, { userId: holder, any: false }, 'not_allocated'],
] as const)('access of %s', (_who, device, asker, access) => {
  expect(accessOf(device, { ...asker, tenantId: tenant })).toBe(access)
  expect(accessOf(device, { ...asker, any: true, tenantId: systemIds.next<'tenant'>() })).toBe('hidden')
})

test('no move leads out of DELETING, and every status but CREATING can be reached', () => {
  const edges = Object.values(moves)
  expect(edges.flatMap(({ from }) => [...from] as string[])).not.toContain('DELETING')
  const reached = new Set<string>(edges.map(({ to }) => to))
  expect(DeviceStatus.options.filter((status) => !reached.has(status))).toEqual(['CREATING', 'MAINTENANCE'])
})

test('a request names the same device for ever, another request another, another kind another', () => {
  const id = idOfRequest('device', 'a')
  expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  expect(idOfRequest('device', 'a')).toBe(id)
  expect(new Set([id, idOfRequest('device', 'b'), idOfRequest('saga', 'a')]).size).toBe(3)
})

test.each([
  ['My Phone', 'my-phone'],
  ['  --x--  ', 'x'],
  ['云手机', 'phone'],
  ['a'.repeat(64), 'a'.repeat(40)],
  ['; rm -rf /', 'rm-rf'],
])('the container of %j is named by a slug', (name, slug) => {
  const id = systemIds.next<'device'>() as DeviceId
  expect(containerName(name, id)).toBe(`cloudphone-${slug}-${id}`)
})

test('restarts wait ever longer, ten minutes at most', () => {
  expect([1, 2, 3, 4, 20].map((attempt) => restartDelayMs(attempt, 1000))).toEqual([
    1000, 4000, 16_000, 64_000, 600_000,
  ])
})

test('durations are whole seconds and never negative', () => {
  const at = (ms: number) => new Date(ms)
  expect([wholeSeconds(at(0), at(1999)), wholeSeconds(at(5000), at(0)), wholeSeconds(null, at(9))]).toEqual([
    1, 0, 0,
  ])
})

test('the line of an adbkey.pub is read as adb reads it; anything else is told what it lacks', async () => {
  const { publicKey } = await generateAdbKey('me@here')
  expect(parseAdbKeyLine(`${publicKey}\n`)).toMatchObject({ publicKey, comment: 'me@here' })
  const struct = Buffer.from(publicKey.split(' ')[0]!, 'base64')
  const changed = (at: number, value: number) => {
    const copy = Buffer.from(struct)
    copy.writeUInt32LE(value, at)
    return copy.toString('base64')
  }
  expect(parseAdbKeyLine('ssh-rsa AAAA')).toEqual({ wrong: 'the first word is not base64' })
  expect(parseAdbKeyLine(changed(0, 32))).toEqual({ wrong: 'it is not an RSA key of 2048 bits' })
  expect(parseAdbKeyLine(changed(520, 17))).toEqual({ wrong: 'its exponent is 17, not 3 or 65537' })
  expect(parseAdbKeyLine(changed(260, 0))).toEqual({ wrong: 'its modulus is shorter than 2048 bits' })
})
