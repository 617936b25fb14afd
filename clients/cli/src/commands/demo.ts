import { mkdir, mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
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
        c.option('--pictures <folder>', 'where to save the screenshots (default: a new temporary folder)'),
      run: async ({ client, flags, out }) => {
        // Only here: adb and sockets are half of what the CLI would load, and no other command needs them.
        const [{ adbIdentity }, { travel }] = await Promise.all([
          import('../demo/adb-identity.ts'),
          import('../demo/journey.ts'),
        ])
        const dataDir = resolve(flags.dataDir ?? process.env.CLOUDPHONE_DATA_DIR ?? '.cloudphone')
        const picturesDir = await folderForPictures(flags.pictures)
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

/** A new one unless it was named: in a shared temporary folder a fixed name may be another user's file, or his link. */
async function folderForPictures(named: string | undefined): Promise<string> {
  if (named === undefined) return mkdtemp(join(tmpdir(), 'cloudphone-demo-'))
  const folder = resolve(named)
  await mkdir(folder, { recursive: true })
  return folder
}
