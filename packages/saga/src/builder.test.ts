import { defineEvent } from '@cloudphone/contracts/event'
import type { AnyTx, Tx } from '@cloudphone/db/database'
import { expect, expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import { saga } from './builder.ts'
import { describe } from './definition.ts'

interface CreateInput {
  name: string
  cores: number
}

const HoldRequested = defineEvent({
  name: 'quota.hold_requested',
  version: 1,
  aggregate: 'hold',
  payload: z.object({ holdId: z.string() }),
  description: 'A hold is wanted.',
})

const create = saga('device_creation', 1, { timeoutMs: 600_000 })
  .input<CreateInput>()
  .local('ALLOCATE_PORTS', async (_tx, s) => {
    expectTypeOf(s).toEqualTypeOf<Readonly<CreateInput>>()
    return { adbPort: 5555 }
  })
  .undo(async (_tx, s) => {
    expectTypeOf(s.name).toEqualTypeOf<string>()
  })
  .call(
    'CREATE_PROVIDER_DEVICE',
    async (s, { key }) => {
      expectTypeOf(s.adbPort).toEqualTypeOf<number>()
      return { externalId: `${key}` }
    },
    {
      timeoutMs: 90_000,
      record: async (_tx, s) => {
        expectTypeOf(s.externalId).toEqualTypeOf<string>()
      },
    },
  )
  .undo(async (s) => {
    expectTypeOf(s.adbPort).toEqualTypeOf<number>()
    // @ts-expect-error after a timeout nobody knows the id that the call may have returned
    void s.externalId
  })
  .ask<{ holdId: string }, typeof HoldRequested>(
    'HOLD_QUOTA',
    HoldRequested,
    async (_tx, s) => ({ aggregateId: s.externalId, aggregateVersion: 1, payload: { holdId: 'h' } }),
    { withinMs: 5_000 },
  )
  .undo(async (_tx, s) => {
    // @ts-expect-error the reply may have been lost
    void s.holdId
  })
  .pointOfNoReturn()
  .local('TELL', async (_tx, s) => {
    expectTypeOf(s.holdId).toEqualTypeOf<string>()
  })
  .onCompleted(async (_tx, s) => {
    expectTypeOf(s.holdId).toEqualTypeOf<string>()
  })
  .onCompensated(async (_tx, s, { error }) => {
    expectTypeOf(error).toEqualTypeOf<string>()
    expectTypeOf(s.cores).toEqualTypeOf<number>()
    // @ts-expect-error only the input is sure to be known when everything has been undone
    void s.adbPort
  })
  .end()

test('a definition can be drawn', () => {
  expect(describe(create)).toEqual({
    type: 'device_creation',
    version: 1,
    timeoutMs: 600_000,
    pointOfNoReturn: 3,
    steps: [
      { name: 'ALLOCATE_PORTS', kind: 'local', hasUndo: true },
      { name: 'CREATE_PROVIDER_DEVICE', kind: 'call', hasUndo: true },
      { name: 'HOLD_QUOTA', kind: 'ask', hasUndo: true },
      { name: 'TELL', kind: 'local', hasUndo: false },
    ],
  })
})

test('steps can see the tables of their service', () => {
  saga('device_creation', 2, { timeoutMs: 1 })
    .input<CreateInput, Tx<{ devices: { id: string } }>>()
    .local('COUNT', async (tx) => {
      const rows = tx.selectFrom('devices').select('id')
      // @ts-expect-error not a table of this service
      void (() => tx.selectFrom('invoices'))
      void rows
    })
    .end()
})

const noStep = async (_tx: AnyTx): Promise<void> => undefined

test.each([
  ['no steps', () => saga('a_b', 1, { timeoutMs: 1 }).input().end(), 'has no steps'],
  [
    'a name twice',
    () => saga('a_b', 1, { timeoutMs: 1 }).input().local('A', noStep).local('A', noStep).end(),
    'two steps named A',
  ],
  [
    'a name in another case',
    () => saga('a_b', 1, { timeoutMs: 1 }).input().local('allocate', noStep).end(),
    'UPPER_SNAKE_CASE',
  ],
  [
    'a type in another case',
    () => saga('DeviceCreation', 1, { timeoutMs: 1 }).input().local('A', noStep).end(),
    'snake_case',
  ],
  ['no version', () => saga('a_b', 0, { timeoutMs: 1 }).input().local('A', noStep).end(), 'version 0'],
  ['no time', () => saga('a_b', 1, { timeoutMs: 0 }).input().local('A', noStep).end(), 'timeoutMs 0'],
  [
    'a point of no return at its end',
    () => saga('a_b', 1, { timeoutMs: 1 }).input().local('A', noStep).pointOfNoReturn().end(),
    'after the last step',
  ],
])('a definition with %s is refused', (_what, build, message) => {
  expect(build).toThrow(message)
})
