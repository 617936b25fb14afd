import { afterAll, beforeAll, expect, test } from 'vitest'
import { carryOut, type Drill } from '../src/drill.ts'
import { type PlatformHome, platformHome } from '../src/platform-process.ts'

/* S9 in full: kill -9 of the whole platform at every named point of device creation. */

const steps = [
  ['ALLOCATE_PORTS', 'local'],
  ['CREATE_PROVIDER_DEVICE', 'call'],
  ['CREATE_DATABASE_RECORD', 'local'],
  ['REPORT_QUOTA_USAGE', 'call'],
  ['START_DEVICE', 'call'],
] as const
const places = ['before_effect', 'after_effect', 'after_checkpoint'] as const

const forward: Drill[] = steps.flatMap(([step]) =>
  places.map((place): Drill => ({ point: `saga.device_creation.${step}.${place}`, end: 'RUNNING' })),
)
// The way back, begun by a phone that never boots: each undo before and after what it does.
const back: Drill[] = steps.flatMap(([step]) =>
  (['before_effect', 'after_effect'] as const).map(
    (place): Drill => ({ point: `saga.device_creation.${step}.undo.${place}`, end: 'gone' }),
  ),
)
const kernel: Drill[] = [
  ...['devices.quota_reserved', 'saga.after_claim', 'outbox.after_claim', 'outbox.after_publish'],
  ...[
    'outbox.after_mark',
    'bus.after_insert',
    'consumer.before_tx',
    'consumer.in_tx',
    'consumer.after_commit',
  ],
].map((point): Drill => ({ point, end: 'RUNNING' }))

let home: PlatformHome
beforeAll(async () => {
  home = await platformHome()
  // The first start of all tells of its own account and node; the drills are about what comes after.
  await (await home.start()).end('SIGTERM')
})
afterAll(() => home?.close())

test('the list is long enough', () => {
  expect(forward.length + back.length + kernel.length).toBe(34)
})

test.each([...forward, ...back, ...kernel])('killed at $point, the creation ends $end', async (drill) => {
  const saga = await carryOut(home, drill)
  if (drill.end === 'RUNNING') expect(saga.stepIndex).toBe(4)
})
