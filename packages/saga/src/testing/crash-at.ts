import { systemClock } from '@cloudphone/observe/clock'
import { expect } from 'vitest'
import { spawnWorker } from './spawn-worker.ts'
import { TOY_STEPS, toySaga } from './toy.ts'
import { begin, openWorkshop, type Workshop } from './workshop.ts'

// Far longer than the tests: what is taken over here is taken over because the process is gone.
const LONG_LEASE_MS = 600_000

async function thingsOfSaga(workshop: Workshop, sagaId: string): Promise<string[]> {
  const rows = await workshop.database.kysely
    .selectFrom('things')
    .select('key')
    .where('saga_id', '=', sagaId)
    .execute()
  return rows.map(({ key }) => key.slice(sagaId.length + 1)).sort()
}

/** Every effect that a saga has had, in order. */
export async function touchesOf(workshop: Workshop, sagaId: string) {
  return workshop.database.kysely
    .selectFrom('touches')
    .selectAll()
    .where('saga_id', '=', sagaId)
    .orderBy('id')
    .execute()
}

const places = ['before_effect', 'after_effect', 'after_checkpoint'] as const
/** Where a saga that goes forward can be cut off. */
export const forward = [
  'after_claim',
  ...TOY_STEPS.flatMap((step) => places.map((place) => `${step}.${place}`)),
]
/** Where one that is being undone can. */
export const backward = TOY_STEPS.flatMap((step) => places.map((place) => `${step}.undo.${place}`))

/**
 * Kills (SIGKILL) a process at a named place of a three-step saga and lets another carry it on: nothing may be lost, doubled
 * or left behind.
 */
export async function crashAt(place: string, fails: boolean): Promise<void> {
  await using workshop = await openWorkshop()
  const definition = toySaga('toy', workshop.database)
  const { sagas } = await workshop.engine({
    definitions: [definition],
    clock: systemClock,
    leaseTtlMs: LONG_LEASE_MS,
    sweepMs: 100,
  })
  const sagaId = await begin(workshop, sagas, definition, { input: { fails }, businessKey: 'toy' })
  const point = place === 'after_claim' ? 'saga.after_claim' : `saga.toy.${place}`
  await using worker = spawnWorker({
    url: workshop.testDatabase.url,
    types: ['toy'],
    leaseTtlMs: LONG_LEASE_MS,
    crash: `${point}=kill`,
  })
  expect(await worker.died()).toBe('SIGKILL')
  await sagas.run()
  const view = await sagas.waitForEnd(sagaId, { timeoutMs: 20_000 })
  expect(view?.status).toBe(fails ? 'COMPENSATED' : 'COMPLETED')
  expect(await thingsOfSaga(workshop, sagaId)).toEqual(fails ? [] : ['LIGHT', 'MAKE', 'TAKE'])
  const touches = await touchesOf(workshop, sagaId)
  // Nothing was touched under an older fence after a newer one had been given out.
  const fences = touches.map(({ fence }) => fence)
  expect(fences).toEqual(fences.toSorted((one, other) => one - other))
  // One crash repeats at most the one effect whose checkpoint it cost.
  const repeated = touches.length - new Set(touches.map(({ key }) => key)).size
  expect(repeated).toBeLessThanOrEqual(place.endsWith('after_effect') ? 1 : 0)
}
