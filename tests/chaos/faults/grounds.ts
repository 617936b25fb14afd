import { startRabbitNode } from '@cloudphone/testing/rabbitmq'
import { openCrew } from '../kernel/crew.ts'
import { openLane } from '../kernel/lane.ts'
import { openProvider } from '../kernel/provider.ts'
import type { Scenario } from './scenarios.ts'
import type { Grounds } from './stage.ts'

/** Starts the servers that some scenarios need, and workers that wait. */
export async function openGrounds(scenarios: readonly Scenario[]): Promise<Grounds & AsyncDisposable> {
  await using stack = new AsyncDisposableStack()
  const lane = stack.use(await openLane())
  const crew = stack.use(await openCrew({ spares: 2 }))
  const provider = stack.use(await openProvider())
  const needsBroker = scenarios.some(({ bus }) => bus === 'rabbitmq')
  const broker = needsBroker ? await startRabbitNode() : undefined
  stack.defer(async () => {
    await broker?.close()
  })
  const opened = stack.move()
  return {
    ...{ lane, crew, provider, broker },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  }
}
