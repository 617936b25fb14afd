import { ListUsage, UsageTotal } from '@cloudphone/contracts/api/billing-api'
import { ListNotifications } from '@cloudphone/contracts/api/notifications-api'
import { Doctor, OutboxOverview } from '@cloudphone/contracts/api/platform-api'
import * as scheduler from '@cloudphone/contracts/api/scheduler-api'
import { Me } from '@cloudphone/contracts/api/users-api'
import { AllocationId, UserId } from '@cloudphone/contracts/id'
import type { Command } from 'commander'
import { argument, command } from '../command.ts'
import { sagaToCompletion } from '../follow.ts'
import { facts, table } from '../output.ts'

/** allocations, usage, notifications, outbox, doctor. */
export function addOperationCommands(program: Command): void {
  addAllocations(program)
  addMoney(program)
  addInspection(program)
}

function addAllocations(program: Command): void {
  const allocations = program.command('allocations').description('pooled phones in use')
  command<{ minutes: string; user?: string }>(allocations, 'create', 'get a pooled phone', {
    configure: (c) =>
      c
        .option('--minutes <minutes>', '1 to 1440', '60')
        .option('--user <user-id>', 'for somebody else (operators)'),
    run: async ({ client, flags, out }) => {
      const userId = flags.user === undefined ? {} : { userId: UserId.parse(flags.user) }
      const body = { durationMinutes: Number(flags.minutes), ...userId }
      const { sagaId, allocation } = await client.call(scheduler.CreateAllocation, { body })
      await sagaToCompletion(client, sagaId, out)
      out.answer(
        await client.call(scheduler.GetAllocation, { params: { allocationId: allocation.id } }),
        describe,
      )
    },
  })
  command(allocations, 'list', 'list allocations of an account (default: one’s own)', {
    configure: (c) => c.argument('[user-id]'),
    run: async ({ client, args, out }) => {
      const userId = args[0] === undefined ? (await client.call(Me)).id : UserId.parse(args[0])
      out.answer(
        await Array.fromAsync(client.each(scheduler.ListUserAllocations, { params: { userId } })),
        (rows) =>
          table(rows, [
            { title: 'ID', of: (one) => one.id },
            { title: 'PHONE', of: (one) => one.deviceName, cut: true },
            { title: 'STATUS', of: (one) => one.status },
            { title: 'UNTIL', of: (one) => one.expiresAt },
            { title: 'REASON', of: (one) => one.reason, cut: true },
          ]),
      )
    },
  })
  command(allocations, 'show', 'show an allocation', {
    configure: (c) => c.argument('<allocation-id>'),
    run: async ({ client, args, out }) => {
      const params = { allocationId: AllocationId.parse(argument(args, 0)) }
      out.answer(await client.call(scheduler.GetAllocation, { params }), describe)
    },
  })
  command(allocations, 'release', 'give a phone back', {
    configure: (c) => c.argument('<allocation-id>'),
    run: async ({ client, args, out }) => {
      const params = { allocationId: AllocationId.parse(argument(args, 0)) }
      const { sagaId } = await client.call(scheduler.ReleaseAllocation, { params })
      await sagaToCompletion(client, sagaId, out)
      out.answer(await client.call(scheduler.GetAllocation, { params }), describe)
    },
  })
}

function describe(allocation: scheduler.Allocation): string {
  return facts([
    ['id', allocation.id],
    ['phone', `${allocation.deviceName} ${allocation.deviceId}`],
    ['status', allocation.status],
    ['user', allocation.userId],
    ['fence', allocation.fence],
    ['since', allocation.allocatedAt],
    ['until', allocation.expiresAt],
    ['reason', allocation.reason],
  ])
}

function addMoney(program: Command): void {
  command(program, 'usage', 'show metered use and what it cost', {
    run: async ({ client, out }) => {
      const records = await Array.fromAsync(client.each(ListUsage))
      const total = await client.call(UsageTotal)
      out.answer({ records, total }, () =>
        [
          table(records, [
            { title: 'DEVICE', of: (one) => one.deviceId },
            { title: 'FROM', of: (one) => one.startTime },
            { title: 'SECONDS', of: (one) => one.duration },
            { title: 'COST', of: (one) => (one.cost === null ? 'running' : `${one.cost} ${one.currency}`) },
          ]),
          `total: ${total.seconds} s, ${total.cost} ${total.currency}; ${total.open} running`,
        ].join('\n'),
      )
    },
  })
  command(program, 'notifications', 'show notices, newest first', {
    run: async ({ client, out }) => {
      const { items } = await client.call(ListNotifications)
      out.answer(items, (rows) =>
        table(rows, [
          { title: 'WHEN', of: (one) => one.createdAt },
          { title: 'NOTICE', of: (one) => one.english.message, cut: true },
          { title: '通知', of: (one) => one.message, cut: true },
        ]),
      )
    },
  })
}

function addInspection(program: Command): void {
  command(program, 'outbox', 'show how far events have left each service', {
    run: async ({ client, out }) => {
      out.answer(await client.call(OutboxOverview), (rows) =>
        table(rows, [
          { title: 'SERVICE', of: (row) => row.service },
          { title: 'PENDING', of: (row) => row.pending },
          { title: 'FAILED', of: (row) => row.failed },
          { title: 'PUBLISHED', of: (row) => row.published },
          { title: 'LAG S', of: (row) => row.lagSeconds.toFixed(1) },
        ]),
      )
    },
  })
  command(program, 'doctor', 'check every invariant of the platform; exit code 1 when one is violated', {
    run: async ({ client, out }) => {
      const { healthy, reports, checkedAt } = await client.call(Doctor)
      out.answer({ healthy, checkedAt, reports }, () =>
        [
          table(
            reports.toSorted((a, b) => a.invariant - b.invariant),
            [
              { title: '#', of: (one) => one.invariant },
              { title: 'INVARIANT', of: (one) => one.name, cut: true },
              { title: 'HOLDS', of: (one) => (one.holds ? 'yes' : 'NO') },
              { title: 'FIGURE', of: (one) => one.figure, cut: true },
            ],
          ),
          ...reports
            .filter((one) => !one.holds)
            .flatMap((one) =>
              one.culprits.map((culprit) => `  ${one.invariant}: ${culprit.id}  ${culprit.detail}`),
            ),
          healthy ? 'All invariants hold.' : 'An invariant is violated.',
        ].join('\n'),
      )
      if (!healthy) process.exitCode = 1
    },
  })
}
