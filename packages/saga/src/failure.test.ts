import { afterAll, beforeAll, expect, test } from 'vitest'
import { saga } from './builder.ts'
import { PermanentError } from './errors.ts'
import { begin, openWorkshop, rowOf, thingsOf, type Workshop, type WorldTx } from './testing/workshop.ts'

let workshop: Workshop
beforeAll(async () => {
  workshop = await openWorkshop()
})
afterAll(() => workshop[Symbol.asyncDispose]())

interface Input {
  readonly name: string
}

/** The seed's scenario 2 in small: a port, then a container that cannot be made. */
function creation(type: string, create: (attempt: number) => Promise<{ externalId: string }>) {
  return saga(type, 1, { timeoutMs: 600_000 })
    .input<Input, WorldTx>()
    .local('ALLOCATE_PORTS', async (tx, s, { sagaId }) => {
      await tx
        .insertInto('things')
        .values({ key: `port of ${s.name}`, saga_id: sagaId })
        .execute()
      return { port: 5555 }
    })
    .undo(async (tx, s) => {
      await tx.deleteFrom('things').where('key', '=', `port of ${s.name}`).execute()
    })
    .call('CREATE_PROVIDER_DEVICE', (_s, { attempt }) => create(attempt))
    .undo(async (s) => {
      await workshop.database.kysely
        .insertInto('notes')
        .values({ saga_id: s.name, text: 'container gone' })
        .execute()
    })
    .local('NEVER_REACHED', async () => {
      throw new Error('reached')
    })
    .onCompensated(async (tx, s, { error, failedStep }) => {
      await tx
        .insertInto('notes')
        .values({ saga_id: s.name, text: `${failedStep}: ${error}` })
        .execute()
    })
    .end()
}

async function notesOf(name: string): Promise<string[]> {
  const rows = await workshop.database.kysely
    .selectFrom('notes')
    .select('text')
    .where('saga_id', '=', name)
    .execute()
  return rows.map(({ text }) => text)
}

test('a step that fails is tried 4 times, at 0, 1, 3 and 7 s, then everything is undone', async () => {
  const triedAtMs: number[] = []
  const startMs = workshop.clock.monotonicMs()
  const definition = creation('docker_fails', async () => {
    triedAtMs.push(workshop.clock.monotonicMs() - startMs)
    throw new Error('Docker create failed: pull access denied, token=abc123')
  })
  const { sagas } = await workshop.engine({ definitions: [definition] })
  const sagaId = await begin(workshop, sagas, definition, { input: { name: 'd' } })
  for (const waitMs of [0, 1_000, 2_000, 4_000]) {
    await workshop.clock.advance(waitMs)
    await sagas.drain()
  }
  expect(triedAtMs).toEqual([0, 1_000, 3_000, 7_000])
  expect(await rowOf(workshop, sagaId)).toMatchObject({
    status: 'COMPENSATED',
    current_step: 'CREATE_PROVIDER_DEVICE',
    step_index: 1,
    retry_count: 3,
    error_message: 'Docker create failed: pull access denied, token=***',
  })
  expect(await thingsOf(workshop)).toEqual([])
  expect(await notesOf('d')).toEqual([
    'container gone',
    'CREATE_PROVIDER_DEVICE: Docker create failed: pull access denied, token=***',
  ])
  const view = await sagas.get(sagaId)
  expect(view?.steps.map(({ status }) => status)).toEqual(['undone', 'failed', 'pending'])
  expect(
    view?.timeline.map(({ step, direction, attempt, status }) => [step, direction, attempt, status]),
  ).toEqual([
    ['ALLOCATE_PORTS', 'do', 1, 'done'],
    ['CREATE_PROVIDER_DEVICE', 'do', 1, 'failed'],
    ['CREATE_PROVIDER_DEVICE', 'do', 2, 'failed'],
    ['CREATE_PROVIDER_DEVICE', 'do', 3, 'failed'],
    ['CREATE_PROVIDER_DEVICE', 'do', 4, 'failed'],
    ['CREATE_PROVIDER_DEVICE', 'undo', 1, 'done'],
    ['ALLOCATE_PORTS', 'undo', 1, 'done'],
  ])
})

test('a running engine wakes for a retry by its own timer', async () => {
  const definition = creation('wakes', async (attempt) => {
    if (attempt === 1) throw new Error('busy')
    throw new PermanentError('invalid', 'no such image')
  })
  const { sagas } = await workshop.engine({ definitions: [definition], sweepMs: 3_600_000 })
  await sagas.run()
  const sagaId = await begin(workshop, sagas, definition, { input: { name: 'w' } })
  for (let view = await sagas.get(sagaId); view?.retryCount !== 1; ) {
    view = await sagas.waitForChange(sagaId, { since: view?.version ?? 0, timeoutMs: 10_000 })
  }
  await workshop.clock.whenSleeping(1)
  const ended = sagas.waitForEnd(sagaId, { timeoutMs: 60_000 })
  await workshop.clock.advance(1_000)
  expect(await ended).toMatchObject({ status: 'COMPENSATED', retryCount: 1, errorMessage: 'no such image' })
})

test('a permanent error skips the retries and names its code', async () => {
  const definition = creation('permanent', async () => {
    throw new PermanentError('quota_exceeded', 'Quota exceeded')
  })
  const { sagas } = await workshop.engine({ definitions: [definition] })
  const sagaId = await begin(workshop, sagas, definition, { input: { name: 'p' } })
  await sagas.drain()
  expect(await rowOf(workshop, sagaId)).toMatchObject({
    status: 'COMPENSATED',
    retry_count: 0,
    error_code: 'quota_exceeded',
  })
})

test('traps 2 and 7: a call that does not end in time is cut off, counted as unknown, and undone', async () => {
  const begun = Promise.withResolvers<AbortSignal>()
  const definition = saga('slow', 1, { timeoutMs: 600_000 })
    .input<Input, WorldTx>()
    .call(
      'CALL',
      (_s, { signal }) => {
        begun.resolve(signal)
        return new Promise<never>((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason), { once: true })
        })
      },
      { timeoutMs: 5_000, delaysMs: [] },
    )
    .undo(async (s) => {
      await workshop.database.kysely.insertInto('notes').values({ saga_id: s.name, text: 'undone' }).execute()
    })
    .end()
  const { sagas } = await workshop.engine({ definitions: [definition] })
  const sagaId = await begin(workshop, sagas, definition, { input: { name: 's' } })
  const drained = sagas.drain()
  const signal = await begun.promise
  await workshop.clock.advance(5_000)
  await drained
  expect(signal.aborted).toBe(true)
  expect(await notesOf('s')).toEqual(['undone'])
  expect(await rowOf(workshop, sagaId)).toMatchObject({
    status: 'COMPENSATED',
    error_code: 'timeout',
    error_message: 'CALL did not end within 5000 ms',
  })
})

test('trap 9: the saga’s deadline cuts a try off and turns it back, once', async () => {
  const begun = Promise.withResolvers<void>()
  const definition = saga('deadline', 1, { timeoutMs: 10_000 })
    .input<Input, WorldTx>()
    .call(
      'CALL',
      (_s, { signal }) => {
        begun.resolve()
        return new Promise<never>((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason), { once: true })
        })
      },
      { timeoutMs: 60_000 },
    )
    .undo(async () => undefined)
    .end()
  const { sagas } = await workshop.engine({ definitions: [definition] })
  const sagaId = await begin(workshop, sagas, definition, { input: { name: 'x' } })
  const drained = sagas.drain()
  await begun.promise
  await workshop.clock.advance(10_000)
  await drained
  const view = await sagas.get(sagaId)
  expect(view).toMatchObject({
    status: 'COMPENSATED',
    errorMessage: 'Timed out at CALL',
    errorCode: 'saga_timeout',
  })
  expect(view?.timeline.filter(({ status }) => status === 'expired')).toHaveLength(1)
})

test('a saga that waits for a retry turns back at its deadline, not after the retry', async () => {
  const definition = saga('waits', 1, { timeoutMs: 3_000 })
    .input<Input, WorldTx>()
    .call(
      'CALL',
      async () => {
        throw new Error('busy')
      },
      { delaysMs: [60_000] },
    )
    .end()
  const { sagas } = await workshop.engine({ definitions: [definition] })
  const sagaId = await begin(workshop, sagas, definition, { input: { name: 'y' } })
  await sagas.drain()
  await workshop.clock.advance(3_000)
  await sagas.drain()
  expect(await rowOf(workshop, sagaId)).toMatchObject({ status: 'COMPENSATED', error_code: 'saga_timeout' })
})

test('past the point of no return it is tried until it works, deadline or not', async () => {
  let broken = true
  const definition = saga('forward_only', 1, { timeoutMs: 3_000 })
    .input<Input, WorldTx>()
    .local('BEFORE', async () => undefined)
    .undo(async () => {
      throw new Error('must not be undone')
    })
    .pointOfNoReturn()
    .local('AFTER', async () => {
      if (broken) throw new PermanentError('refused', 'refused')
    })
    .end()
  const alarms: string[] = []
  const { sagas, metrics } = await workshop.engine({
    definitions: [definition],
    onStuck: ({ alarm }) => alarms.push(alarm),
  })
  const sagaId = await begin(workshop, sagas, definition, { input: { name: 'z' } })
  await sagas.drain()
  await workshop.clock.advance(20 * 60_000)
  await sagas.drain()
  expect(alarms).toEqual(['no_return', 'no_return'])
  expect(await rowOf(workshop, sagaId)).toMatchObject({ status: 'RUNNING', current_step: 'AFTER' })
  expect(await sagas.overdue({ graceMs: 60_000, limit: 10 })).toMatchObject([{ sagaId }])
  expect(await metrics.render()).toMatch(/saga_alarms_total\{type="forward_only",alarm="no_return".*\} 2/)
  broken = false
  await workshop.clock.advance(20 * 60_000)
  await sagas.drain()
  expect(await rowOf(workshop, sagaId)).toMatchObject({
    status: 'COMPLETED',
    current_step: 'AFTER',
    step_index: 1,
  })
  expect(await sagas.overdue({ graceMs: 0, limit: 10 })).toEqual([])
})

function stuckSaga(type: string, undoWorks: () => boolean) {
  return saga(type, 1, { timeoutMs: 600_000 })
    .input<Input, WorldTx>()
    .local('FIRST', async (tx, s, { sagaId }) => {
      await tx.insertInto('things').values({ key: s.name, saga_id: sagaId }).execute()
    })
    .undo(async (tx, s) => {
      await tx.deleteFrom('things').where('key', '=', s.name).execute()
    })
    .call('SECOND', async () => {
      throw new PermanentError('invalid', 'invalid')
    })
    .undo(async () => {
      if (!undoWorks()) throw new Error('vendor is down')
    })
    .end()
}

test('trap 3: a compensation that fails is stuck, shown, and goes on by itself when the cause is gone', async () => {
  let works = false
  const definition = stuckSaga('stuck_heals', () => works)
  const alarms: string[] = []
  const { sagas, metrics } = await workshop.engine({
    definitions: [definition],
    onStuck: ({ alarm }) => alarms.push(alarm),
  })
  const sagaId = await begin(workshop, sagas, definition, { input: { name: 'h' } })
  await sagas.drain()
  for (const waitMs of [1_000, 2_000, 4_000]) {
    await workshop.clock.advance(waitMs)
    await sagas.drain()
  }
  expect(await rowOf(workshop, sagaId)).toMatchObject({
    status: 'COMPENSATION_STUCK',
    error_message: 'invalid',
  })
  expect(alarms).toEqual(['stuck'])
  expect(await metrics.render()).toMatch(/saga_stuck\{.*\} 1/)
  expect(await thingsOf(workshop)).toEqual(['h'])
  works = true
  await workshop.clock.advance(8_000)
  await sagas.drain()
  expect(await rowOf(workshop, sagaId)).toMatchObject({ status: 'COMPENSATED', current_step: 'SECOND' })
  expect(await thingsOf(workshop)).toEqual([])
})

test('an operator retries at once, or skips with a reason; both are in the timeline', async () => {
  const definition = stuckSaga('stuck_skip', () => false)
  const { sagas } = await workshop.engine({ definitions: [definition] })
  const sagaId = await begin(workshop, sagas, definition, { input: { name: 'k' } })
  await sagas.drain()
  await workshop.clock.advance(30_000)
  for (let failed = 1; failed < 4; failed += 1) {
    await sagas.drain()
    await workshop.clock.advance(30_000)
  }
  await sagas.retry(sagaId, 'operator-1')
  await sagas.drain()
  expect((await rowOf(workshop, sagaId)).status).toBe('COMPENSATION_STUCK')
  await expect(sagas.skip({ sagaId, step: 'FIRST', reason: 'r', actor: 'o' })).rejects.toThrow(
    'stands at SECOND',
  )
  await expect(sagas.skip({ sagaId, step: 'SECOND', reason: ' ', actor: 'o' })).rejects.toThrow(
    'needs a reason',
  )
  await sagas.skip({ sagaId, step: 'SECOND', reason: 'removed by hand', actor: 'operator-1' })
  await sagas.drain()
  const view = await sagas.get(sagaId)
  expect(view).toMatchObject({ status: 'COMPENSATED', currentStep: 'SECOND', stepIndex: 1 })
  expect(view?.timeline.map(({ status }) => status).filter((status) => status !== 'failed')).toEqual([
    'done',
    'retried',
    'skipped',
    'done',
  ])
  expect(await thingsOf(workshop)).toEqual([])
  const { rows } = await workshop.database.pool.query(
    `select actor, error from saga_step_log where saga_id = $1 and status = 'skipped'`,
    [sagaId],
  )
  expect(rows).toEqual([{ actor: 'operator-1', error: 'removed by hand' }])
  await expect(sagas.retry(sagaId, 'operator-1')).rejects.toThrow('has ended COMPENSATED')
})

test('a saga can be turned back from outside', async () => {
  const definition = creation('cancelled', async () => {
    throw new Error('busy')
  })
  const { sagas } = await workshop.engine({ definitions: [definition] })
  const sagaId = await begin(workshop, sagas, definition, { input: { name: 'c' } })
  await sagas.drain()
  await sagas.turnBack({ sagaId, reason: 'Order cancelled', code: 'cancelled', actor: 'user-1' })
  await sagas.drain()
  expect(await rowOf(workshop, sagaId)).toMatchObject({
    status: 'COMPENSATED',
    error_message: 'Order cancelled',
    error_code: 'cancelled',
  })
})

test('onCompleted that fails is the last step’s failure, and nothing of it stays', async () => {
  const definition = saga('bad_end', 1, { timeoutMs: 600_000 })
    .input<Input, WorldTx>()
    .local('ONLY', async (tx, s, { sagaId }) => {
      await tx.insertInto('things').values({ key: s.name, saga_id: sagaId }).execute()
    })
    .onCompleted(async () => {
      throw new PermanentError('no_end', 'cannot end')
    })
    .end()
  const { sagas } = await workshop.engine({ definitions: [definition] })
  const sagaId = await begin(workshop, sagas, definition, { input: { name: 'e' } })
  await sagas.drain()
  expect(await rowOf(workshop, sagaId)).toMatchObject({ status: 'COMPENSATED', error_code: 'no_end' })
  expect(await thingsOf(workshop)).toEqual([])
})
