import { tmpdir } from 'node:os'
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { command } from '../command.ts'
import type { GlobalFlags } from '../connection.ts'
import { facts } from '../output.ts'

/** `cloudphone demo`: the whole main job, told step by step. */
export function addDemoCommand(program: Command): void {
  command<GlobalFlags & { pictures?: string }>(
    program,
    'demo',
    'the whole journey of a phone, step by step (needs an operator)',
    {
      configure: (c) =>
        c.option('--pictures <folder>', 'where to save the screenshots (default: the temporary folder)'),
      run: async ({ client, flags, out }) => {
        // Only here: adb and sockets are half of what the CLI would load, and no other command needs them.
        const [{ adbIdentity }, { travel }] = await Promise.all([
          import('../demo/adb-identity.ts'),
          import('../demo/journey.ts'),
        ])
        const dataDir = resolve(flags.dataDir ?? process.env.CLOUDPHONE_DATA_DIR ?? '.cloudphone')
        const picturesDir = flags.pictures === undefined ? tmpdir() : resolve(flags.pictures)
        const report = await travel({ client, identity: await adbIdentity(dataDir), out, picturesDir })
        out.answer(report, (done) =>
          facts([
            ['phone', done.deviceId],
            ['accepted in', `${done.accepted.ms} ms`],
            ['pictures', done.pictures.join(' ')],
            ['metered', `${done.usage.seconds} s, ${done.usage.cost} CNY`],
            ['invariants', done.healthy ? 'all hold' : 'VIOLATED'],
          ]),
        )
        if (!report.healthy) process.exitCode = 1
      },
    },
  )
}
