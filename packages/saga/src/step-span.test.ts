import {
  currentTraceparent,
  inTrace,
  newTraceparent,
  type SpanAttributes,
  type SpanFacts,
  type Tracer,
} from '@cloudphone/observe/trace'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { saga } from './builder.ts'
import { begin, openWorkshop, type Workshop, type WorldTx } from './testing/workshop.ts'

let workshop: Workshop
beforeAll(async () => {
  workshop = await openWorkshop()
})
afterAll(() => workshop[Symbol.asyncDispose]())

interface Kept extends SpanFacts {
  readonly traceparent: string
  noted: SpanAttributes
  failure?: string | undefined
}

/** A tracer that sends nothing anywhere. */
function keepSpans(): { tracer: Tracer; ended: Kept[] } {
  const ended: Kept[] = []
  const start = (facts: SpanFacts) => {
    const fresh = newTraceparent()
    const traceparent = facts.parent === undefined ? fresh : facts.parent.slice(0, 36) + fresh.slice(36)
    const kept: Kept = { ...facts, traceparent, noted: { ...facts.attributes } }
    return {
      traceparent,
      isRecording: true,
      note: (attributes: SpanAttributes) => void Object.assign(kept.noted, attributes),
      fail: (_error: unknown, type?: string) => {
        kept.failure = type
      },
      end: () => void ended.push(kept),
    }
  }
  return { tracer: { start }, ended }
}

test('every try is a span under what started the saga, and what it does runs in it', async () => {
  const { tracer, ended } = keepSpans()
  const inside: (string | undefined)[] = []
  let tries = 0
  const trip = saga('trip', 1, { timeoutMs: 600_000 })
    .input<object, WorldTx>()
    .local('PACK', async () => {
      inside.push(currentTraceparent())
    })
    .undo(async () => undefined)
    .call(
      'GO',
      async () => {
        inside.push(currentTraceparent())
        tries += 1
        if (tries === 1) throw new Error('a flat tyre')
        throw Object.assign(new Error('the road is gone'), { retryable: false })
      },
      { delaysMs: [0] },
    )
    .end()
  const { sagas } = await workshop.engine({ definitions: [trip], tracer })
  await sagas.run()
  const caller = newTraceparent()
  const sagaId = await inTrace(caller, () => begin(workshop, sagas, trip, { input: {} }))
  await sagas.waitForEnd(sagaId, { timeoutMs: 10_000 })
  await sagas.stop()
  expect(
    ended.map(({ name, noted, failure }) => [name, noted['saga.attempt'], noted['saga.outcome'], failure]),
  ).toEqual([
    ['saga trip PACK', 1, 'done', undefined],
    ['saga trip GO', 1, 'failed', 'failed'],
    ['saga trip GO', 2, 'failed', 'failed'],
    ['saga trip PACK.undo', 1, 'done', undefined],
  ])
  for (const { parent, kind, noted } of ended) {
    expect([parent, kind, noted['saga.type'], noted['saga.id']]).toEqual([caller, 'internal', 'trip', sagaId])
  }
  expect(inside).toEqual(ended.slice(0, 3).map(({ traceparent }) => traceparent))
})

test('a saga that nobody asked for begins a trace, and its tries are in it', async () => {
  const { tracer, ended } = keepSpans()
  const sweep = saga('sweep', 1, { timeoutMs: 600_000 })
    .input<object, WorldTx>()
    .local('SWEEP', async () => undefined)
    .end()
  const { sagas } = await workshop.engine({ definitions: [sweep], tracer })
  await sagas.run()
  const sagaId = await begin(workshop, sagas, sweep, { input: {}, businessKey: 'sweep' })
  await sagas.waitForEnd(sagaId, { timeoutMs: 10_000 })
  await sagas.stop()
  const [started, tried] = ended
  expect(started).toMatchObject({ name: 'saga sweep start', parent: undefined })
  expect(tried).toMatchObject({ name: 'saga sweep SWEEP', parent: started?.traceparent })
})
