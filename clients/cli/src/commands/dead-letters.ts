import {
  type DeadLetterView,
  GetDeadLetter,
  ListDeadLetters,
  ReplayDeadLetter,
  ReplayDeadLetters,
} from '@cloudphone/contracts/api/operator-api'
import type { Command } from 'commander'
import { confirm } from '../ask.ts'
import { argument, command } from '../command.ts'
import { facts, table } from '../output.ts'
import { type PageFlags, pageOptions, pageSize, take } from '../paging.ts'

const exampleId = '0198f0c0-8a3e-7c41-9d1b-5e2f60a7b8c9'

/** dead-letters. */
export function addDeadLetterCommands(program: Command): void {
  const letters = program
    .command('dead-letters')
    .description('events that a consumer could not take: see why, and put them back when the cause is mended')
  addReading(letters)
  addReplays(letters)
}

function addReading(letters: Command): void {
  command<PageFlags & { queue?: string }>(letters, 'list', 'list them in the order in which they died', {
    configure: (c) => pageOptions(c.option('--queue <queue>', 'only those of one queue')),
    example: 'dead-letters list --queue billing-service.device-started',
    isDefault: true,
    run: async ({ client, flags, out }) => {
      const query = { ...pageSize(flags), ...(flags.queue !== undefined && { queue: flags.queue }) }
      out.answer(await take(client.each(ListDeadLetters, { query }), flags, out), (rows) =>
        table(rows, [
          { title: 'ID', of: (row) => row.id },
          { title: 'QUEUE', of: (row) => row.queue },
          { title: 'EVENT', of: (row) => row.eventType },
          { title: 'ERROR', of: (row) => row.error, cut: true },
        ]),
      )
    },
  })
  command(letters, 'show', 'show one: the event, why it was refused, and what became of it before', {
    configure: (c) => c.argument('<dead-letter-id>'),
    example: `dead-letters show ${exampleId}`,
    run: async ({ client, args, out }) => {
      const params = { deadLetterId: argument(args, 0) }
      out.answer(await client.call(GetDeadLetter, { params }), draw)
    },
  })
}

function addReplays(letters: Command): void {
  command<{ reason?: string }>(letters, 'replay', 'put one back into its queue, under its own event id', {
    configure: (c) => c.argument('<dead-letter-id>').option('--reason <text>', 'kept in the audit'),
    example: `dead-letters replay ${exampleId} --reason "the price list is mended"`,
    run: async ({ client, args, flags: { reason }, out }) => {
      const params = { deadLetterId: argument(args, 0) }
      const body = reason === undefined ? {} : { reason }
      out.answer(await client.call(ReplayDeadLetter, { params, body }), (done) =>
        done.outcome === 'replayed'
          ? `Event ${done.eventId} is back in ${done.queue}`
          : `Nothing to do: event ${done.eventId} went back to ${done.queue} at ${done.replayedAt}`,
      )
    },
  })
  command<{ queue?: string; reason?: string; yes?: true }>(letters, 'replay-all', 'put all of them back', {
    configure: (c) =>
      c
        .option('--queue <queue>', 'only those of one queue')
        .option('--reason <text>', 'kept in the audit')
        .option('--yes', 'do not ask'),
    example: 'dead-letters replay-all --queue billing-service.device-started --yes',
    run: async ({ client, flags: { queue, reason, yes }, out }) => {
      await confirm(`Put all dead letters of ${queue ?? 'every queue'} back?`, { yes })
      const body = { ...(queue !== undefined && { queue }), ...(reason !== undefined && { reason }) }
      out.answer(await client.call(ReplayDeadLetters, { body }), ({ replayed, queues }) =>
        [`${replayed} put back`, ...queues.map((one) => `  ${one.queue}: ${one.replayed}`)].join('\n'),
      )
    },
  })
}

function draw(letter: DeadLetterView): string {
  return [
    facts([
      ['id', letter.id],
      ['queue', letter.queue],
      ['service', letter.service],
      ['event', `${letter.eventType} ${letter.eventId}`],
      ['error', letter.error],
      ['tries', letter.attempts],
      ['first failed', letter.firstFailedAt],
      ['died', letter.diedAt],
    ]),
    '',
    table(letter.history, [
      { title: 'AT', of: (one) => one.at },
      { title: 'WHAT', of: (one) => one.what },
      { title: 'TRIES', of: (one) => one.attempts },
      { title: 'BY', of: (one) => one.actor },
      { title: 'WHY', of: (one) => one.error ?? one.reason, cut: true },
    ]),
    '',
    JSON.stringify(letter.envelope, null, 2).replaceAll(/[^\P{Cc}\n]/gu, ' '),
  ].join('\n')
}
