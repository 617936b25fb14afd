import { runProgram } from './harness/program.ts'
import { gateway } from './suites/gateway.ts'
import { journey } from './suites/journey.ts'
import { kernel } from './suites/kernel.ts'
import { phone } from './suites/phone.ts'
import { quota } from './suites/quota.ts'

/** `npm run bench -- NAME`. A new suite is a file in suites/ and a line here. */
process.exitCode = await runProgram(
  { command: 'npm run bench', suites: { gateway, journey, kernel, phone, quota } },
  process.argv.slice(2),
)
