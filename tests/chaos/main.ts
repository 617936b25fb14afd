import { runProgram } from '@cloudphone/bench/harness/program'
import { creation } from './creation.ts'
import { faults } from './faults.ts'
import { guards } from './guards.ts'
import { kernel } from './kernel.ts'
import { simulation } from './simulation.ts'

/** `npm run chaos -- NAME`. A new drill is a file beside this one and a line here. */
process.exitCode = await runProgram(
  { command: 'npm run chaos', suites: { creation, faults, guards, kernel, simulation } },
  process.argv.slice(2),
)
