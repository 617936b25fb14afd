import { randomUUID } from 'node:crypto'
import { DBOS } from '@dbos-inc/dbos-sdk'
import { closedLoop, type LoopOutcome } from '../../harness/samples.ts'
import { type Contestant, demandEqual } from '../contestant.ts'
import { type SagaOrder, type SagaSettings, STEPS, stepResult } from './saga-order.ts'
import { numbers, truncate } from './tables.ts'

/** Five no-op steps by DBOS Transact, as its documentation has it: a registered workflow of `DBOS.runStep`. @public */
export function openContestant({ url, poolSize }: SagaSettings): Contestant<SagaOrder, LoopOutcome> {
  let stepsRun = 0
  const step = (name: string) => {
    const result = stepResult(name)
    return () =>
      DBOS.runStep(
        async () => {
          stepsRun += 1
          return result
        },
        { name },
      )
  }
  const steps = ['one', 'two', 'three', 'four', 'five'].map(step)
  const workflow = DBOS.registerWorkflow(
    async (n: number) => {
      for (const run of steps) await run()
      return n
    },
    { name: 'bench' },
  )
  const launch = async (): Promise<void> => {
    DBOS.setConfig({
      ...{ name: 'bench', systemDatabaseUrl: url, systemDatabasePoolSize: poolSize, logLevel: 'error' },
    })
    await DBOS.launch()
  }
  return {
    async setUp() {
      await launch()
      await DBOS.shutdown()
    },
    clear: () => truncate(url, { schema: 'dbos', keep: ['dbos_migrations'] }),
    async open() {
      await launch()
      stepsRun = 0
    },
    work: ({ concurrency, durationMs }) =>
      closedLoop({
        concurrency,
        durationMs,
        once: async () => {
          const handle = await DBOS.startWorkflow(workflow, { workflowID: randomUUID() })(1)
          await handle.getResult()
        },
      }),
    close: () => DBOS.shutdown(),
    async audit({ count }) {
      const found = await numbers<'workflows' | 'completed' | 'steps'>(
        url,
        `select (select count(*) from dbos.workflow_status) as workflows,
                (select count(*) from dbos.workflow_status where status = 'SUCCESS') as completed,
                (select count(*) from dbos.operation_outputs) as steps`,
      )
      demandEqual('workflows', found.workflows, count)
      demandEqual('completed workflows', found.completed, count)
      demandEqual('recorded steps', found.steps, count * STEPS)
      demandEqual('steps run', stepsRun, count * STEPS)
    },
  }
}
