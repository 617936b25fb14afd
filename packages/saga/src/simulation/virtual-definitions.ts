/* Saga definitions out of shapes: what a process of the simulated world runs. */
import { defineEvent } from '@cloudphone/contracts/event'
import { z } from 'zod'
import type { Known } from '../crew.ts'
import { planOf } from '../decide.ts'
import type { CallContext, SagaDefinition, Step } from '../definition.ts'
import type { CommandOutbox } from '../run.ts'
import { STEP_NAMES } from './auditor.ts'
import type { ModelDatabase, ModelTx } from './model-store.ts'
import { failureOfBehaviour, type OutsideWorld } from './outside-world.ts'
import type { RemoteStore } from './remote-store.ts'
import type { DefinitionShape, StepShape } from './shapes.ts'
import type { VirtualProcess } from './virtual-process.ts'

export interface Surroundings {
  readonly shapes: ReadonlyMap<string, DefinitionShape>
  readonly process: VirtualProcess
  readonly store: RemoteStore
  readonly database: ModelDatabase
  readonly outside: OutsideWorld
}

const Asked = defineEvent({
  name: 'simulation.asked',
  version: 1,
  aggregate: 'saga',
  payload: z.object({ step: z.string(), attempt: z.number() }),
  description: 'A step of a simulated saga asks another service.',
})

/** The definitions by type, as this process has them. */
export function definitionsIn(surroundings: Surroundings): Map<string, Known<ModelTx>> {
  return new Map(
    [...surroundings.shapes].map(([type, shape]) => {
      const definition = definitionOf(type, shape, surroundings)
      return [type, { definition, plan: planOf(definition) }]
    }),
  )
}

/** The outbox of this process: a command goes on the bus with the commit of its transaction. */
export function virtualOutbox({ store, outside, database, shapes }: Surroundings): CommandOutbox<ModelTx> {
  return {
    async add(tx, _definition, { aggregateId: sagaId, payload }) {
      const { step, attempt } = Asked.payload.parse(payload)
      const { type = '' } = database.sagas.get(sagaId) ?? {}
      const shape = shapes.get(type)?.steps[STEP_NAMES.indexOf(step)]
      if (shape === undefined) throw new Error(`${sagaId} has no step ${step}`)
      await store.statement(tx, `outbox: command ${attempt} ${sagaId}:${step}`, () => {
        tx.commits.push(() => outside.send({ sagaId, step, attempt, shape }))
      })
    },
  }
}

function definitionOf(
  type: string,
  shape: DefinitionShape,
  surroundings: Surroundings,
): SagaDefinition<never, ModelTx> {
  const steps = shape.steps.map((step, at): Step<ModelTx> => {
    const name = STEP_NAMES[at] ?? ''
    if (step.kind === 'local') return localStep(name, step, surroundings)
    return step.kind === 'ask' ? askStep(name, step, surroundings) : callStep(name, step, surroundings)
  })
  const count =
    (what: string) =>
    (tx: ModelTx, _state: never, { sagaId }: { sagaId: string }) =>
      change(surroundings, tx, { key: `${sagaId}:${what}`, by: 1 })
  return {
    type,
    version: 1,
    timeoutMs: shape.timeoutMs,
    steps,
    pointOfNoReturn: shape.pointOfNoReturn,
    ...(shape.hasHooks && { onCompleted: count('completed'), onCompensated: count('compensated') }),
  }
}

/** A row of the service's own, in the transaction of the checkpoint; what is not there is not taken away. */
async function change(
  { store, database }: Surroundings,
  tx: ModelTx,
  { key, by }: { key: string; by: 1 | -1 },
): Promise<void> {
  if (by < 0 && (database.things.get(key) ?? 0) === 0) return
  await store.statement(tx, `${by > 0 ? 'insert' : 'delete'} ${key}`, () => database.change(tx, key, by))
}

function localStep(name: string, shape: StepShape, surroundings: Surroundings): Step<ModelTx> {
  const { outside, process } = surroundings
  const act = async (tx: ModelTx, sagaId: string, direction: 'do' | 'undo'): Promise<void> => {
    const behaviour = outside.behaviourOf({ sagaId, step: name, shape, direction })
    const acts = behaviour !== 'fails' && behaviour !== 'refuses' && behaviour !== 'kills'
    if (acts) await change(surroundings, tx, { key: `${sagaId}:${name}`, by: direction === 'do' ? 1 : -1 })
    if (behaviour.endsWith('kills')) {
      outside.kill(sagaId, process)
      await new Promise<never>(() => undefined)
    }
    const error = failureOfBehaviour(behaviour)
    if (error !== undefined) throw error
  }
  return {
    kind: 'local',
    name,
    run: async (tx, _state, { sagaId }) => {
      await act(tx, sagaId, 'do')
      return { [name]: sagaId }
    },
    ...(shape.undoable && { undo: (tx, _state, { sagaId }) => act(tx, sagaId, 'undo') }),
    retry: retryOf(shape),
  }
}

function callStep(name: string, shape: StepShape, surroundings: Surroundings): Step<ModelTx> {
  const { outside, process } = surroundings
  const touch = (direction: 'do' | 'undo', { sagaId, fence, signal }: CallContext) =>
    outside.touch({ process, sagaId, step: name, direction, fence, signal, shape })
  const record =
    (by: 1 | -1) =>
    (tx: ModelTx, _state: never, { sagaId }: { sagaId: string }) =>
      change(surroundings, tx, { key: `${sagaId}:${name}:record`, by })
  return {
    kind: 'call',
    name,
    run: (_state, context) => touch('do', context),
    ...(shape.records && { record: record(1) }),
    ...(shape.undoable && {
      undo: async (_state: never, context: CallContext) => {
        await touch('undo', context)
      },
    }),
    ...(shape.undoable && shape.records && { recordUndo: record(-1) }),
    retry: retryOf(shape),
  }
}

function askStep(name: string, shape: StepShape, { store, outside }: Surroundings): Step<ModelTx> {
  return {
    kind: 'ask',
    name,
    command: Asked,
    facts: async (_tx, _state, { sagaId, attempt }) => ({
      aggregateId: sagaId,
      aggregateVersion: 1,
      payload: { step: name, attempt },
    }),
    withinMs: shape.timeoutMs,
    ...(shape.undoable && {
      undo: (tx, _state, { sagaId }) =>
        store.statement(tx, `outbox: cancel ${sagaId}:${name}`, () => {
          tx.commits.push(() => outside.send({ sagaId, step: name, attempt: undefined, shape }))
        }),
    }),
    retry: retryOf(shape),
  }
}

function retryOf({ timeoutMs, delaysMs }: StepShape) {
  return { timeoutMs, ...(delaysMs === undefined ? {} : { delaysMs }) }
}
