import type { Database } from '@cloudphone/db/database'
import { saga } from '../builder.ts'
import { PermanentError } from '../errors.ts'
import type { WorldSchema, WorldTx } from './workshop.ts'

export interface ToyInput {
  /** Makes the last step act and then fail for good, so that everything is undone. */
  readonly fails: boolean
  /** Makes the second step wait in the middle of its effect until a note with this text appears. */
  readonly waitsFor?: string
}

/** The steps of a toy saga, for the names of crash points. */
export const TOY_STEPS = ['TAKE', 'MAKE', 'LIGHT'] as const

/**
 * Three steps that leave a thing each in the world: one by its checkpoint, two by calls that are safe to repeat.
 * Every touch is written down beside it with the fence under which it was made.
 */
export function toySaga(type: string, world: Database<WorldSchema>) {
  const touch = async (step: string, direction: string, key: string, fence: number): Promise<void> => {
    const sagaId = key.split(':')[0] ?? ''
    await world.kysely
      .insertInto('touches')
      .values({ saga_id: sagaId, step, direction, key, fence })
      .execute()
  }
  const put = async (key: string): Promise<void> => {
    await world.kysely
      .insertInto('things')
      .values({ key, saga_id: key.split(':')[0] ?? '' })
      .onConflict((conflict) => conflict.doNothing())
      .execute()
  }
  const remove = async (key: string): Promise<void> => {
    await world.kysely.deleteFrom('things').where('key', '=', key).execute()
  }
  return saga(type, 1, { timeoutMs: 600_000 })
    .input<ToyInput, WorldTx>()
    .local('TAKE', async (tx, _s, { sagaId }) => {
      await tx
        .insertInto('things')
        .values({ key: `${sagaId}:TAKE`, saga_id: sagaId })
        .execute()
      return { taken: true }
    })
    .undo(async (tx, _s, { sagaId }) => {
      await tx.deleteFrom('things').where('key', '=', `${sagaId}:TAKE`).execute()
    })
    .call('MAKE', async (s, { key, fence }) => {
      await touch('MAKE', 'do', key, fence)
      if (s.waitsFor !== undefined) await noteOf(world, s.waitsFor)
      await put(key)
      return { made: key }
    })
    .undo(async (_s, { key, fence }) => {
      await touch('MAKE', 'undo', key, fence)
      await remove(key.replace(/:undo$/, ''))
    })
    .call('LIGHT', async (s, { key, fence }) => {
      await touch('LIGHT', 'do', key, fence)
      await put(key)
      if (s.fails) throw new PermanentError('burnt', `burnt after ${s.made}`)
    })
    .undo(async (_s, { key, fence }) => {
      await touch('LIGHT', 'undo', key, fence)
      await remove(key.replace(/:undo$/, ''))
    })
    .end()
}

async function noteOf(world: Database<WorldSchema>, text: string): Promise<void> {
  await until(async () => {
    const rows = await world.kysely.selectFrom('notes').select('text').where('text', '=', text).execute()
    return rows.length > 0
  })
}

/** Asks again and again until the answer is yes. */
export async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20))
}
