import * as api from '@cloudphone/contracts/api/quota-api'
import { Me } from '@cloudphone/contracts/api/users-api'
import { TenantId, UserId } from '@cloudphone/contracts/id'
import type { Command } from 'commander'
import type { z } from 'zod'
import { argument, command } from '../command.ts'
import { facts } from '../output.ts'

type NewLimits = z.input<typeof api.SetQuota.body>

interface LimitFlags {
  readonly phones?: string
  readonly cpu?: string
  readonly memory?: string
  readonly storage?: string
  readonly sessions?: string
}

/** quota: show, check, set, tenant, set-tenant. */
export function addQuotaCommands(program: Command): void {
  const quota = program.command('quota').description('limits and use of accounts and tenants')
  command(quota, 'show', 'show limits and use of an account (default: one’s own)', {
    configure: (c) => c.argument('[user-id]', 'whose'),
    isDefault: true,
    example: 'quota show',
    run: async ({ client, args, out }) => {
      const userId = args[0] === undefined ? (await client.call(Me)).id : UserId.parse(args[0])
      out.answer(await client.call(api.GetQuota, { params: { userId } }), describe)
    },
  })
  command<{ cpu: string; memory: string; storage: string; fresh?: true }>(
    quota,
    'check',
    'say whether one more phone would fit',
    {
      configure: (c) =>
        c
          .option('--cpu <cores>', 'its CPU cores', '2')
          .option('--memory <mb>', 'its memory', '4096')
          .option('--storage <mb>', 'its storage', '10240')
          .option('--fresh', 'by what is known now, not in the last 60 s'),
      example: 'quota check --cpu 4',
      run: async ({ client, flags, out }) => {
        const query = {
          cpuCores: Number(flags.cpu),
          memoryMB: Number(flags.memory),
          storageMB: Number(flags.storage),
        }
        const answer = await client.call(api.CheckQuota, {
          query: { ...query, fresh: String(flags.fresh === true) },
        })
        out.answer(answer, ({ fits, excess }) =>
          fits || excess === null
            ? 'It fits'
            : `It does not fit: of ${excess.limit} ${excess.resource} of the ${excess.whose}, ${excess.used} are in use and ${excess.asked} more are needed`,
        )
      },
    },
  )
  command<LimitFlags>(
    quota,
    'set',
    'change limits of an account; what is not named goes back to the default',
    {
      configure: (c) => limitOptions(c.argument('<user-id>', 'whose')),
      example: 'quota set 0198c0de-0000-7000-8000-000000000001 --phones 20 --sessions 5',
      run: async ({ client, args, flags, out }) => {
        const userId = UserId.parse(argument(args, 0))
        out.answer(await client.call(api.SetQuota, { params: { userId }, body: limitsOf(flags) }), describe)
      },
    },
  )
  command(quota, 'tenant', 'show limits and use of a tenant (default: one’s own)', {
    configure: (c) => c.argument('[tenant-id]', 'which'),
    run: async ({ client, args, out }) => {
      const tenantId = args[0] === undefined ? (await client.call(Me)).tenantId : TenantId.parse(args[0])
      out.answer(await client.call(api.GetTenantQuota, { params: { tenantId } }), describe)
    },
  })
  command<LimitFlags>(
    quota,
    'set-tenant',
    'change limits of a tenant; what is not named goes back to the default',
    {
      configure: (c) => limitOptions(c.argument('<tenant-id>', 'which')),
      run: async ({ client, args, flags, out }) => {
        const tenantId = TenantId.parse(argument(args, 0))
        const body = limitsOf(flags)
        out.answer(await client.call(api.SetTenantQuota, { params: { tenantId }, body }), describe)
      },
    },
  )
}

function limitOptions(command: Command): Command {
  return command
    .option('--phones <count>', 'phones of one’s own')
    .option('--cpu <cores>', 'their CPU cores together')
    .option('--memory <mb>', 'their memory together')
    .option('--storage <mb>', 'their storage together')
    .option('--sessions <count>', 'pooled phones in use at a time')
}

function limitsOf({ phones, cpu, memory, storage, sessions }: LimitFlags): NewLimits {
  const number = (text: string | undefined) => (text === undefined ? null : Number(text))
  return {
    maxDevices: number(phones),
    maxCpu: number(cpu),
    maxMemory: number(memory),
    maxStorage: number(storage),
    maxSessions: number(sessions),
  }
}

function describe({ limits, used }: { limits: api.QuotaLimits; used: api.QuotaUse }): string {
  return facts([
    ['phones', `${used.devices} of ${limits.maxDevices}`],
    ['CPU cores', `${used.cpu} of ${limits.maxCpu}`],
    ['memory MB', `${used.memory} of ${limits.maxMemory}`],
    ['storage MB', `${used.storage} of ${limits.maxStorage}`],
    ['sessions', `${used.sessions} of ${limits.maxSessions}`],
  ])
}
