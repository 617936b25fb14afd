import { Command } from 'commander'
import { addAccountCommands } from './commands/account.ts'
import { addAppCommands } from './commands/apps.ts'
import { addDemoCommand } from './commands/demo.ts'
import { addDeviceCommands } from './commands/devices.ts'
import { addOperationCommands } from './commands/operations.ts'

const help = `
How the CLI finds the platform: --url, CLOUDPHONE_URL, or the platform of the data directory.
How it signs in: --api-key or CLOUDPHONE_API_KEY, the session of "cloudphone login", CLOUDPHONE_ADMIN_EMAIL and
CLOUDPHONE_ADMIN_PASSWORD, or credentials.json in the data directory.`

/** The `cloudphone` command with everything that a client can do; the server adds `start` and `stop`. */
export function buildProgram(): Command {
  const program = new Command('cloudphone')
    .description('Android cloud phones: create, use, meter, delete')
    .option('--url <url>', 'the gateway, such as http://127.0.0.1:30000')
    .option('--api-key <key>', 'sign in by an API key')
    .option('--data-dir <path>', 'where a platform on this machine keeps everything (default .cloudphone)')
    .option('--json', 'answer in JSON')
    .addHelpText('after', help)
    .showHelpAfterError('(see cloudphone --help)')
  addDemoCommand(program)
  addDeviceCommands(program)
  addAppCommands(program)
  addOperationCommands(program)
  addAccountCommands(program)
  return program
}
