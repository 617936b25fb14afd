import type { Role } from '@cloudphone/contracts/access'
import * as api from '@cloudphone/contracts/api/users-api'
import { type Client, CloudphoneError } from '@cloudphone/sdk/client'
import type { Command } from 'commander'
import { ask } from '../ask.ts'
import { command } from '../command.ts'
import { loginAtProvider } from '../oidc-login.ts'
import { facts, table } from '../output.ts'

/** login, logout, whoami, users. */
export function addAccountCommands(program: Command): void {
  command<{ email?: string; password?: string; code?: string; provider?: string }>(
    program,
    'login',
    'sign in and keep the session for this URL',
    {
      configure: (c) =>
        c
          .option('--email <email>', 'whom to sign in')
          .option('--password <password>', 'asked for when absent')
          .option('--code <code>', 'of the second factor, or a recovery code; asked for when it is needed')
          .option('--provider <name>', 'sign in at this OpenID provider instead, in a browser'),
      run: async ({ client, url, sessions, flags, out }) => {
        const tokens =
          flags.provider === undefined
            ? await loginByPassword(client, flags)
            : await loginAtProvider(client, flags.provider, (page) =>
                process.stderr.write(`Open this in a browser:\n${page}\n`),
              )
        await sessions.write(url, tokens)
        out.answer(tokens.user, (user) => `Signed in to ${url} as ${user.email} (${user.role})`)
      },
    },
  )
  command(program, 'logout', 'end the session of this URL', {
    run: async ({ client, url, sessions, out }) => {
      const tokens = await sessions.read(url)
      if (tokens !== undefined) await client.call(api.Logout, { body: { refreshToken: tokens.refreshToken } })
      await sessions.remove(url)
      out.answer({ signedOut: tokens !== undefined }, ({ signedOut }) =>
        signedOut ? 'Signed out' : 'Nobody was signed in',
      )
    },
  })
  command(program, 'whoami', 'show the account and its rights', {
    run: async ({ client, out }) => {
      out.answer(await client.call(api.Me), (me) =>
        facts([
          ['id', me.id],
          ['email', me.email],
          ['role', me.role],
          ['tenant', me.tenantId],
          ['may', me.permissions.join(' ')],
        ]),
      )
    },
  })
  addUserCommands(program)
}

async function loginByPassword(
  client: Client,
  flags: { email?: string; password?: string; code?: string },
): Promise<api.Tokens> {
  const email = flags.email ?? (await ask('E-mail: '))
  const password = flags.password ?? (await ask('Password: ', 'hidden'))
  const login = (code: string | undefined) =>
    client.call(api.Login, { body: { email, password, ...(code !== undefined && { code }) } })
  try {
    return await login(flags.code)
  } catch (error) {
    if (!(error instanceof CloudphoneError) || error.code !== 'second_factor_required') throw error
    return login(await ask('Code: '))
  }
}

function addUserCommands(program: Command): void {
  const users = program.command('users').description('accounts of the tenant')
  command<{ email: string; password?: string; name?: string; role: string }>(
    users,
    'create',
    'make an account',
    {
      configure: (c) =>
        c
          .requiredOption('--email <email>', 'its e-mail')
          .option('--password <password>', '12 characters at least; asked for when absent')
          .option('--name <name>', 'how to call its person')
          .option('--role <role>', 'admin, operator, member or viewer', 'member'),
      run: async ({ client, flags, out }) => {
        const { email, name = email, role } = flags
        const password = flags.password ?? (await ask('Password for the account: ', 'hidden'))
        const user = await client.call(api.CreateUser, {
          body: { email, password, name, role: role as Role },
        })
        out.answer(user, (made) => `Made ${made.email} (${made.role}) ${made.id}`)
      },
    },
  )
  command(users, 'list', 'list accounts', {
    run: async ({ client, out }) => {
      out.answer(await Array.fromAsync(client.each(api.ListUsers)), (rows) =>
        table(rows, [
          { title: 'ID', of: (user) => user.id },
          { title: 'E-MAIL', of: (user) => user.email },
          { title: 'ROLE', of: (user) => user.role },
          { title: 'STATUS', of: (user) => user.status },
        ]),
      )
    },
  })
}
