import { CONTRACT_SAGA, type StoreHarness, storeContract } from '../store.contract.ts'
import { ModelDatabase, type ModelTx, modelStore } from './model-store.ts'

async function openModel(): Promise<StoreHarness<ModelTx>> {
  let appNowMs = 0
  let realNowMs = 0
  const database = new ModelDatabase({
    appNowMs: () => appNowMs,
    // Real time goes on between any two looks at it.
    realNowMs: () => {
      realNowMs += 1
      return realNowMs
    },
  })
  let last = 0
  return {
    store: modelStore(database),
    async start() {
      last += 1
      const sagaId = `saga-${last}`
      const { type, version, steps, timeoutMs } = CONTRACT_SAGA
      const firstStep = steps[0]
      database.start({
        sagaId,
        type,
        defVersion: version,
        firstStep,
        timeoutMs,
        input: {},
        traceparent: null,
      })
      return sagaId
    },
    async reply(sagaId, step, outcome) {
      await database.unlocked(sagaId)
      return database.reply(sagaId, step, outcome)
    },
    async openExecutor() {
      last += 1
      const id = `executor-${last}`
      database.executors.add(id)
      return {
        id,
        async die() {
          database.executors.delete(id)
        },
      }
    },
    async advance(ms) {
      appNowMs += ms
    },
    async read(sagaId) {
      const row = database.sagas.get(sagaId)
      if (row === undefined) throw new Error(`no saga ${sagaId}`)
      return { ...row, nextRunInMs: row.nextRunAtMs - appNowMs }
    },
    log: async (sagaId) =>
      database.log
        .filter((entry) => entry.sagaId === sagaId)
        .map(({ step, direction, attempt, status, error, executor, fence }) => {
          return { step, direction, attempt, status, error, executor, fence }
        }),
    async put(tx, key) {
      database.change(tx, key, 1)
    },
    things: async () => [...database.things.keys()].sort(),
    async [Symbol.asyncDispose]() {
      database.sagas.clear()
    },
  }
}

storeContract('the model of the simulation', openModel)
