import { openLog } from '@cloudphone/observe/log'
import { Command } from 'commander'
import { announce, withdraw } from './lock.ts'
import type { RunningServer } from './run.ts'
import { readServerSettings, type Settings } from './settings.ts'

interface Flags {
  services?: string
  dataDir?: string
  portBase?: string
  host?: string
  logLevel?: string
}

const settingsHelp = `
Settings by environment (flags win):
  CLOUDPHONE_DATA_DIR        where everything is kept; also --data-dir (default .cloudphone)
  CLOUDPHONE_PORT_BASE       port of the gateway; the services follow on the next ones (default 30000)
  CLOUDPHONE_HOST            address to listen on (default 127.0.0.1)
  CLOUDPHONE_SERVICES        all, or names with commas between them (default all)
  CLOUDPHONE_ADMIN_EMAIL     the first account (default admin@cloudphone.local)
  CLOUDPHONE_ADMIN_PASSWORD  its password, 12 characters at least (default: made up once, in credentials.json)
  CLOUDPHONE_LOG_LEVEL       fatal, error, warn, info, debug, trace or silent (default warn)
  CLOUDPHONE_LOG_FORMAT      pretty or json (default: pretty on a terminal)
  DATABASE_URL               a PostgreSQL server, 15 or newer, instead of the embedded one
  OTEL_EXPORTER_OTLP_ENDPOINT  where traces go, such as http://localhost:4318 (default nowhere)
  DEVICES_*, USERS_*, ...    settings of single services: see docs/operations.md`

/** `cloudphone start`: runs the platform until Ctrl-C. */
export function startCommand(): Command {
  return new Command('start')
    .description('run the platform on this machine until Ctrl-C')
    .option('--services <names>', 'which services: all, or names with commas between them')
    .option('--port-base <port>', 'port of the gateway; the services follow on the next ones')
    .option('--host <address>', 'address to listen on')
    .option('--log-level <level>', 'how much to log to standard error')
    .addHelpText('after', settingsHelp)
    .action(async (_flags: unknown, command: Command) => {
      process.exitCode = await start(command.optsWithGlobals<Flags>())
    })
}

/** Runs until a signal ends it; answers the exit code. Every failure to start is one line. */
async function start(flags: Flags): Promise<number> {
  let settings: Settings
  let server: RunningServer
  // Listened for from the beginning: Ctrl-C during the start must not leave PostgreSQL and the phone host behind.
  const signalled = firstSignal()
  try {
    settings = readServerSettings({ ...process.env, ...fromFlags(flags) }, process.cwd())
    const { startServer } = await import('./run.ts')
    server = await startServer(settings, openLog(settings.log))
  } catch (error) {
    process.stderr.write(`cloudphone: ${error instanceof Error ? error.message : String(error)}\n`)
    if (process.env.CLOUDPHONE_LOG_LEVEL === 'debug' && error instanceof Error)
      process.stderr.write(`${error.stack}\n`)
    return 1
  }
  const url = server.services.find((service) => service.name === 'gateway')?.address
  // The process with the door stands for the platform: clients find it, and `cloudphone stop` ends it.
  if (url !== undefined) await announce(settings.dataDir, url)
  greet(server, settings, url)
  const signal = await signalled
  process.stdout.write(
    signal === 'SIGINT' ? 'Stopping phones and services ...\n' : 'Stopping services; phones stay ...\n',
  )
  await server.shutDown(signal === 'SIGINT' ? 'stop' : 'keep')
  if (url !== undefined) await withdraw(settings.dataDir)
  process.stdout.write('Stopped.\n')
  return 0
}

function fromFlags(flags: Flags): Record<string, string> {
  const named = {
    CLOUDPHONE_SERVICES: flags.services,
    CLOUDPHONE_DATA_DIR: flags.dataDir,
    CLOUDPHONE_PORT_BASE: flags.portBase,
    CLOUDPHONE_HOST: flags.host,
    CLOUDPHONE_LOG_LEVEL: flags.logLevel,
  }
  return Object.fromEntries(
    Object.entries(named).filter((entry): entry is [string, string] => entry[1] !== undefined),
  )
}

function greet(server: RunningServer, settings: Settings, url: string | undefined): void {
  if (url === undefined) {
    const parts = server.services.map(({ name, address }) => `  ${name} at ${address}`)
    process.stdout.write(`A part of Cloudphone is ready:\n${parts.join('\n')}\n`)
    return
  }
  const { admin, adminIsNew } = server.secrets
  const lines = [
    `Cloudphone is ready at ${url}`,
    adminIsNew
      ? `  admin     ${admin.email}  password ${admin.password}  (shown this once; kept in ${settings.dataDir}/credentials.json)`
      : `  admin     ${admin.email}  (password in ${settings.dataDir}/credentials.json, or as you set it)`,
    `  API       ${url}/api/docs`,
    ...server.notes.map((note) => `  note      ${note}`),
    '  try       npx cloudphone demo',
    '  stop      Ctrl-C',
  ]
  process.stdout.write(`${lines.join('\n')}\n`)
}

/** A second Ctrl-C while draining ends the process at once: what it leaves is found at the next start. */
function firstSignal(): Promise<'SIGINT' | 'SIGTERM'> {
  return new Promise((resolve) => {
    for (const name of ['SIGINT', 'SIGTERM'] as const) {
      let seen = 0
      process.on(name, () => {
        seen += 1
        if (seen > 1) {
          process.stderr.write(
            'Ended at once: the database and phones may go on; the next start takes them over.\n',
          )
          process.exit(130)
        }
        resolve(name)
      })
    }
  })
}
