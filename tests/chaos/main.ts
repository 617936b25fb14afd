import { runProgram } from '@cloudphone/bench/harness/program'
import { creation } from './creation.ts'
import { kernel } from './kernel.ts'

/** `npm run chaos -- NAME`. A new drill is a file beside this one and a line here. */
process.exitCode = await runProgram(
  { command: 'npm run chaos', suites: { creation, kernel } },
  process.argv.slice(2),
)
