import { RetrySaga, SkipSagaStep, TurnSagaBack } from '@cloudphone/contracts/api/operator-api'
import { GetSaga, ListSagas, type SagaView } from '@cloudphone/contracts/api/platform-api'
import type { Command } from 'commander'
import { confirm } from '../ask.ts'
import { argument, command } from '../command.ts'
import { followSaga } from '../follow.ts'
import { facts, table } from '../output.ts'
import { type PageFlags, pageOptions, pageSize, take } from '../paging.ts'

const exampleId = 'device_creation-0198f0c0-8a3e-7c41-9d1b-5e2f60a7b8c9'

/** sagas. */
export function addSagaCommands(program: Command): void {
  const sagas = program
    .command('sagas')
    .description('long operations: see how they go, and help those that are stuck')
  addReading(sagas)
  command<{ reason?: string }>(sagas, 'retry', 'try a waiting, stuck or quarantined saga again at once', {
    configure: (c) => c.argument('<saga-id>').option('--reason <text>', 'kept in the audit'),
    example: `sagas retry ${exampleId} --reason "the provider is back"`,
    run: async ({ client, args, flags: { reason }, out }) => {
      const params = { sagaId: argument(args, 0) }
      const body = reason === undefined ? {} : { reason }
      out.answer(await client.call(RetrySaga, { params, body }), (saga) => told('Tried again', saga))
    },
  })
  command<{ step: string; reason: string; yes?: true }>(
    sagas,
    'skip',
    'give up the step at which a saga stands: an undo, or one past the point of no return',
    {
      configure: (c) =>
        c
          .argument('<saga-id>')
          .requiredOption('--step <step>', 'where it stands; refused when it has moved on')
          .requiredOption('--reason <text>', 'kept in the audit and the timeline')
          .option('--yes', 'do not ask'),
      example: `sagas skip ${exampleId} --step CREATE_PROVIDER_DEVICE --reason "removed by hand"`,
      run: async ({ client, args, flags: { step, reason, yes }, out }) => {
        const sagaId = argument(args, 0)
        await confirm(`Give up ${step} of ${sagaId}? What it should have undone stays as it is.`, { yes })
        const saga = await client.call(SkipSagaStep, { params: { sagaId }, body: { step, reason } })
        out.answer(saga, () => told(`Skipped ${step}`, saga))
      },
    },
  )
  command<{ reason: string }>(sagas, 'turn-back', 'make a saga undo what it did, as its deadline would', {
    configure: (c) =>
      c.argument('<saga-id>').requiredOption('--reason <text>', 'becomes its error; kept in the audit'),
    example: `sagas turn-back ${exampleId} --reason "ordered by mistake"`,
    run: async ({ client, args, flags: { reason }, out }) => {
      const params = { sagaId: argument(args, 0) }
      out.answer(await client.call(TurnSagaBack, { params, body: { reason } }), (saga) =>
        told('Turned back', saga),
      )
    },
  })
}

interface ListFlags extends PageFlags {
  readonly status?: SagaView['status']
  readonly type?: string
  readonly stuck?: true
}

function addReading(sagas: Command): void {
  command<ListFlags>(sagas, 'list', 'list sagas, newest first', {
    configure: (c) =>
      pageOptions(
        c
          .option('--stuck', 'only those that need somebody: halted, or overdue')
          .option('--status <status>', 'RUNNING, COMPENSATION_STUCK ...')
          .option('--type <type>', 'device_creation ...'),
      ),
    example: 'sagas list --stuck',
    run: async ({ client, flags, out }) => {
      const { status, type, stuck } = flags
      const query = {
        ...pageSize(flags),
        ...(status && { status }),
        ...(type && { type }),
        ...(stuck && { stuck: 'true' as const }),
      }
      out.answer(await take(client.each(ListSagas, { query }), flags, out), (rows) =>
        table(rows, [
          { title: 'SAGA', of: (one) => one.sagaId },
          { title: 'STATUS', of: (one) => one.status },
          { title: 'STEP', of: (one) => one.standsAt ?? one.currentStep },
          { title: 'ERROR', of: (one) => one.errorMessage, cut: true },
        ]),
      )
    },
  })
  command<{ follow?: true }>(sagas, 'show', 'show a saga with its steps and timeline', {
    configure: (c) => c.argument('<saga-id>').option('--follow', 'until it ends'),
    example: `sagas show ${exampleId}`,
    run: async ({ client, args, flags, out }) => {
      const sagaId = argument(args, 0)
      const saga = flags.follow
        ? await followSaga(client, sagaId, out)
        : await client.call(GetSaga, { params: { sagaId } })
      out.answer(saga, drawSaga)
    },
  })
}

function told(what: string, saga: SagaView): string {
  return `${what}: ${saga.sagaId} is ${saga.status}. Follow it: cloudphone sagas show ${saga.sagaId} --follow`
}

function drawSaga(saga: SagaView): string {
  return [
    facts([
      ['saga', saga.sagaId],
      ['status', saga.status],
      ['step', `${saga.currentStep} (${saga.stepIndex})`],
      ...(saga.standsAt === null ? [] : [['stands at', saga.standsAt] as const]),
      ['retries', saga.retryCount],
      ['error', saga.errorMessage],
      ['about', saga.subject],
      ['user', saga.userId],
      ['deadline', saga.deadlineAt],
    ]),
    '',
    table(saga.steps, [
      { title: 'STEP', of: (step) => step.name },
      { title: 'KIND', of: (step) => step.kind },
      { title: 'STATUS', of: (step) => step.status },
    ]),
    '',
    table(saga.timeline, [
      { title: 'AT', of: (entry) => entry.startedAt },
      { title: 'STEP', of: (entry) => `${entry.direction === 'undo' ? 'undo ' : ''}${entry.step}` },
      { title: 'TRY', of: (entry) => entry.attempt },
      { title: 'RESULT', of: (entry) => entry.status },
      { title: 'ERROR', of: (entry) => entry.error, cut: true },
      { title: 'BY', of: (entry) => entry.actor },
    ]),
  ].join('\n')
}
