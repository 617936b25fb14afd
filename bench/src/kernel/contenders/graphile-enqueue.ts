import { Logger, type Runner, run, runMigrations } from 'graphile-worker'
import { openLoop } from '../../harness/samples.ts'
import { type Contestant, demandEqual } from '../contestant.ts'
import { type EnqueueOrder, type EnqueueOutcome, FirstSteps } from './enqueue-order.ts'
import type { JobSettings } from './graphile-jobs.ts'
import { truncate } from './tables.ts'

/** A job of graphile-worker: from the request to add it to the first line of its task, in the same process. @public */
export function openContestant({
  url,
  poolSize,
  concurrency,
}: JobSettings): Contestant<EnqueueOrder, EnqueueOutcome> {
  const steps = new FirstSteps()
  const logger = new Logger(() => () => undefined)
  let runner: Runner | undefined
  return {
    setUp: () => runMigrations({ connectionString: url, logger }),
    clear: () => truncate(url, { schema: 'graphile_worker', keep: ['migrations', '_private_tasks'] }),
    async open() {
      steps.clear()
      runner = await run({
        ...{ connectionString: url, maxPoolSize: poolSize, logger, noHandleSignals: true },
        concurrency,
        taskList: { first: async (payload) => steps.begin((payload as { n: number }).n) },
      })
    },
    async work({ count, perSecond }) {
      const send = async (n: number): Promise<void> => {
        const begun = steps.await(n)
        await runner?.addJob('first', { n })
        await begun
      }
      const sent = await openLoop({ count, perSecond, send })
      return { count, latenciesMs: sent.map(({ ms }) => ms) }
    },
    async close() {
      await runner?.stop()
      runner = undefined
    },
    async audit({ count }) {
      demandEqual('jobs run', steps.runs, count)
    },
  }
}
