import { createWriteStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { type AuditOutcome, ExportAudit, ListAudit } from '@cloudphone/contracts/api/audit-api'
import type { SdkInput } from '@cloudphone/sdk/client'
import type { Command } from 'commander'
import { command } from '../command.ts'
import { table } from '../output.ts'
import { type PageFlags, pageOptions, pageSize, take } from '../paging.ts'

interface Flags extends PageFlags {
  readonly actor?: string
  readonly verb?: string
  readonly target?: string
  readonly tenant?: string
  readonly request?: string
  readonly since?: string
  readonly until?: string
  readonly outcome?: AuditOutcome
  readonly export?: string
}

/** audit. */
export function addAuditCommand(program: Command): void {
  command<Flags>(program, 'audit', 'who changed what, newest first', {
    configure: (c) =>
      pageOptions(
        c
          .option('--actor <id>', 'the user who did it, or system:<part>')
          .option('--verb <verb>', 'such as device.create, or its beginning: device.')
          .option('--target <id>', 'the thing that was changed')
          .option('--tenant <id>', 'one tenant (for callers of the platform’s own)')
          .option('--request <id>', 'all that one request did')
          .option('--since <time>', 'a time such as 2026-11-28T07:00Z, or a while ago: 30m, 24h, 7d')
          .option('--until <time>', 'the same; what is older than that')
          .option('--outcome <outcome>', 'done, refused, failed, unknown')
          .option(
            '--export <file>',
            'write all that is found to a file: CSV if its name ends so, else JSON lines',
          ),
      ),
    example: 'audit --verb device. --since 24h --export devices.csv',
    run: async ({ client, flags, out }) => {
      const filter = filterOf(flags, Date.now())
      if (flags.export !== undefined) {
        const format = flags.export.endsWith('.csv') ? 'csv' : 'ndjson'
        const bytes = await client.stream(ExportAudit, { query: { ...filter, format } })
        // Whatever was written before is not overwritten by chance.
        await pipeline(bytes, createWriteStream(flags.export, { flags: 'wx', mode: 0o600 }))
        out.answer({ file: flags.export }, () => flags.export ?? '')
        return
      }
      const query = { ...filter, ...pageSize(flags) }
      out.answer(await take(client.each(ListAudit, { query }), flags, out), (rows) =>
        table(rows, [
          { title: 'AT', of: (row) => row.at },
          { title: 'VERB', of: (row) => row.verb },
          { title: 'OUTCOME', of: (row) => row.outcome },
          { title: 'TARGET', of: (row) => row.target },
          { title: 'BY', of: (row) => row.actor },
          { title: 'REASON', of: (row) => row.reason, cut: true },
          { title: 'DETAIL', of: (row) => row.detail, cut: true },
        ]),
      )
    },
  })
}

/** What is allowed in it is the platform's to say. */
function filterOf(flags: Flags, nowMs: number): SdkInput<typeof ExportAudit>['query'] & object {
  const { actor, verb, target, tenant: tenantId, request: requestId, outcome, since, until } = flags
  const given = {
    actor,
    verb,
    target,
    tenantId,
    requestId,
    outcome,
    from: timeOf(since, nowMs),
    to: timeOf(until, nowMs),
  }
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
}

const unitsMs = { m: 60_000, h: 3_600_000, d: 86_400_000 }

/** A time, or how long ago it was. */
function timeOf(text: string | undefined, nowMs: number): string | undefined {
  if (text === undefined) return undefined
  const [, count, unit] = /^(\d{1,6})([mhd])$/.exec(text) ?? []
  const ms =
    count === undefined ? Date.parse(text) : nowMs - Number(count) * unitsMs[unit as keyof typeof unitsMs]
  if (Number.isNaN(ms)) throw new Error(`'${text}' is no time: give one such as 2026-11-28T07:00Z, or 24h`)
  return new Date(ms).toISOString()
}
