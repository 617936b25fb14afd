import { buildProgram } from '@cloudphone/cli'
import { startCommand } from './start-command.ts'
import { stopCommand } from './stop-command.ts'

const program = buildProgram()
program.addCommand(startCommand())
program.addCommand(stopCommand())
try {
  await program.parseAsync()
} catch (error) {
  // What a command has not put into words itself, such as a wrong setting in `stop`: one line, too.
  process.stderr.write(`cloudphone: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
