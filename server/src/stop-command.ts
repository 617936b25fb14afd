import { systemClock } from '@cloudphone/observe/clock'
import { Command } from 'commander'
import { findRunning } from './lock.ts'
import { readServerSettings } from './settings.ts'

const withinMs = 60_000

/** `cloudphone stop`: ends the platform that runs on a data directory, in good order. */
export function stopCommand(): Command {
  return new Command('stop')
    .description('stop the platform that runs on a data directory')
    .option('--keep-phones', 'leave the phones running; the next start finds them')
    .action(async (_flags: unknown, command: Command) => {
      const flags = command.optsWithGlobals<{ dataDir?: string; keepPhones?: true }>()
      const env = {
        ...process.env,
        ...(flags.dataDir !== undefined && { CLOUDPHONE_DATA_DIR: flags.dataDir }),
      }
      const { dataDir } = readServerSettings(env, process.cwd())
      const running = await findRunning(dataDir)
      if (running === undefined) {
        process.stderr.write(`cloudphone: nothing runs on ${dataDir}\n`)
        process.exitCode = 1
        return
      }
      process.kill(running.pid, flags.keepPhones ? 'SIGTERM' : 'SIGINT')
      const untilMs = systemClock.monotonicMs() + withinMs
      while ((await findRunning(dataDir)) !== undefined) {
        if (systemClock.monotonicMs() > untilMs) {
          process.stderr.write(
            `cloudphone: process ${running.pid} has not ended within ${withinMs / 1000} s\n`,
          )
          process.exitCode = 1
          return
        }
        await systemClock.sleep(50)
      }
      process.stdout.write('stopped\n')
    })
}
