import { GetSaga, type SagaView } from '@cloudphone/contracts/api/platform-api'
import type { Client } from '@cloudphone/sdk/client'
import type { Output } from './output.ts'

const waitSeconds = 30
const marks: Record<SagaView['steps'][number]['status'], string> = {
  pending: ' ',
  running: '>',
  done: '+',
  failed: 'x',
  undone: '<',
  skipped: '-',
}

/** Waits until a saga ends and tells of each step as it moves. */
export async function followSaga(client: Client, sagaId: string, out: Output): Promise<SagaView> {
  const told = new Set<string>()
  let saga = await client.call(GetSaga, { params: { sagaId } })
  for (;;) {
    for (const step of saga.steps) {
      const line = `  [${marks[step.status]}] ${step.name} ${step.status}`
      if (step.status !== 'pending' && !told.has(line)) out.note(line)
      told.add(line)
    }
    if (saga.endedAt !== null) return saga
    saga = await client.call(GetSaga, {
      params: { sagaId },
      query: { wait: waitSeconds, since: saga.updatedAt },
    })
  }
}

/** As `followSaga`, and an error with the saga's own words when it did not complete. */
export async function sagaToCompletion(client: Client, sagaId: string, out: Output): Promise<SagaView> {
  const saga = await followSaga(client, sagaId, out)
  if (saga.status === 'COMPLETED') return saga
  throw new Error(
    `${saga.sagaId} ended ${saga.status} at ${saga.currentStep}: ${saga.errorMessage ?? 'no reason given'}`,
  )
}
