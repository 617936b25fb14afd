import { readFileSync } from 'node:fs'
import { Command } from 'commander'
import { jsonError } from './command.ts'
import { addAccountCommands } from './commands/account.ts'
import { addAdbCommand } from './commands/adb.ts'
import { addAppCommands } from './commands/apps.ts'
import { addAuditCommand } from './commands/audit.ts'
import { addCredentialCommands } from './commands/credentials.ts'
import { addDeadLetterCommands } from './commands/dead-letters.ts'
import { addDemoCommand } from './commands/demo.ts'
import { addDeviceCommands } from './commands/devices.ts'
import { addIdentityCommands } from './commands/identity.ts'
import { addOperationCommands } from './commands/operations.ts'
import { addQuotaCommands } from './commands/quota.ts'
import { addSagaCommands } from './commands/sagas.ts'

const help = `
How the CLI finds the platform: --url, CLOUDPHONE_URL, or the platform of the data directory.
How it signs in: --api-key or CLOUDPHONE_API_KEY, the session of "cloudphone login", CLOUDPHONE_ADMIN_EMAIL and
CLOUDPHONE_ADMIN_PASSWORD, or credentials.json in the data directory.`

/** The `cloudphone` command with everything that a client can do; the server adds `start` and `stop`. */
export function buildProgram(argv: readonly string[] = process.argv): Command {
  const json = argv.includes('--json')
  const program = new Command('cloudphone')
    .description('Android cloud phones: create, use, meter, delete')
    .option('--url <url>', 'the gateway, such as http://127.0.0.1:30000')
    .option('--api-key <key>', 'sign in by an API key')
    .option('--data-dir <path>', 'where a platform on this machine keeps everything (default .cloudphone)')
    .option('--json', 'answer in JSON')
    .addHelpText('after', help)
    .version(version())
    .showHelpAfterError(json ? false : '(see cloudphone --help)')
    // A command line that cannot be understood is refused before any command runs.
    .configureOutput({
      outputError: (text, write) =>
        write(json ? jsonError('cli_usage', text.trim().replace(/^error: /, '')) : text),
    })
  addDemoCommand(program)
  addDeviceCommands(program)
  addAdbCommand(program)
  addAppCommands(program)
  addOperationCommands(program)
  addSagaCommands(program)
  addDeadLetterCommands(program)
  addAuditCommand(program)
  addAccountCommands(program)
  addQuotaCommands(program)
  addCredentialCommands(program)
  addIdentityCommands(program)
  return program
}

function version(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))
  return String((manifest as { version?: unknown }).version)
}
