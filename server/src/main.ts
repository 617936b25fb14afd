import { buildProgram } from '@cloudphone/cli'
import { startCommand } from './start-command.ts'
import { stopCommand } from './stop-command.ts'

const program = buildProgram()
program.addCommand(startCommand())
program.addCommand(stopCommand())
await program.parseAsync()
