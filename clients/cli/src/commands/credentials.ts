import { Permission } from '@cloudphone/contracts/access'
import * as api from '@cloudphone/contracts/api/users-api'
import { UserId } from '@cloudphone/contracts/id'
import type { Client } from '@cloudphone/sdk/client'
import type { Command } from 'commander'
import { argument, command } from '../command.ts'
import { table } from '../output.ts'

/** sessions, api-keys, signing-keys. */
export function addCredentialCommands(program: Command): void {
  addSessionCommands(program)
  addApiKeyCommands(program)
  addSigningKeyCommands(program)
}

const whose = async (client: Client, userId: string | undefined) =>
  userId === undefined ? (await client.call(api.Me)).id : UserId.parse(userId)

function addSessionCommands(program: Command): void {
  const sessions = program.command('sessions').description('where an account is signed in')
  command<{ user?: string }>(sessions, 'list', 'list sessions that can still be used', {
    configure: (c) => c.option('--user <user-id>', 'whose (default: one’s own)'),
    run: async ({ client, flags, out }) => {
      const params = { userId: await whose(client, flags.user) }
      out.answer(await Array.fromAsync(client.each(api.ListSessions, { params })), (rows) =>
        table(rows, [
          { title: 'ID', of: (session) => session.id },
          { title: 'BEGAN', of: (session) => session.createdAt },
          { title: 'LAST USED', of: (session) => session.lastUsedAt },
          { title: 'HERE', of: (session) => (session.current ? 'this one' : '') },
        ]),
      )
    },
  })
  command<{ user?: string }>(sessions, 'revoke', 'end a session everywhere, or all but this one', {
    configure: (c) =>
      c
        .argument('[session-id]', 'which; all but this one when absent')
        .option('--user <user-id>', 'whose (default: one’s own)'),
    run: async ({ client, args, flags, out }) => {
      const userId = await whose(client, flags.user)
      const [sessionId] = args
      if (sessionId !== undefined) await client.call(api.RevokeSession, { params: { userId, sessionId } })
      const { revoked } =
        sessionId === undefined
          ? await client.call(api.RevokeSessions, { params: { userId } })
          : { revoked: 1 }
      out.answer({ revoked }, () => `Ended ${revoked} ${revoked === 1 ? 'session' : 'sessions'}`)
    },
  })
}

function addApiKeyCommands(program: Command): void {
  const keys = program.command('api-keys').description('keys for scripts')
  command<{ expiresInDays?: string; scope?: string[] }>(keys, 'create', 'make a key; it is shown this once', {
    configure: (c) =>
      c
        .argument('<name>', 'what it is for')
        .option('--expires-in-days <days>', 'until when it works')
        .option('--scope <permission...>', `what it may do at most: ${Permission.options.join(', ')}`),
    run: async ({ client, args, flags, out }) => {
      const { expiresInDays, scope } = flags
      const body = {
        name: argument(args, 0),
        ...(expiresInDays !== undefined && { expiresInDays: Number(expiresInDays) }),
        ...(scope !== undefined && { scopes: scope.map((one) => Permission.parse(one)) }),
      }
      out.answer(await client.call(api.CreateApiKey, { body }), ({ key }) => key)
    },
  })
  command(keys, 'list', 'list keys', {
    run: async ({ client, out }) => {
      out.answer(await Array.fromAsync(client.each(api.ListApiKeys)), (rows) =>
        table(rows, [
          { title: 'ID', of: (key) => key.id },
          { title: 'NAME', of: (key) => key.name, cut: true },
          { title: 'STARTS WITH', of: (key) => key.prefix },
          { title: 'SCOPES', of: (key) => key.scopes?.join(' ') ?? 'all', cut: true },
          { title: 'EXPIRES', of: (key) => key.expiresAt },
          { title: 'LAST USED', of: (key) => key.lastUsedAt },
        ]),
      )
    },
  })
  command<{ overlapSeconds?: string }>(keys, 'rotate', 'make the successor of a key; it is shown this once', {
    configure: (c) =>
      c
        .argument('<api-key-id>')
        .option('--overlap-seconds <seconds>', 'how long the old one works on (default: a day)'),
    run: async ({ client, args, flags, out }) => {
      const body = flags.overlapSeconds === undefined ? {} : { overlapSeconds: Number(flags.overlapSeconds) }
      const made = await client.call(api.RotateApiKey, { params: { apiKeyId: argument(args, 0) }, body })
      out.answer(made, ({ key }) => key)
    },
  })
  command(keys, 'delete', 'revoke a key', {
    configure: (c) => c.argument('<api-key-id>'),
    run: async ({ client, args, out }) => {
      const apiKeyId = argument(args, 0)
      await client.call(api.DeleteApiKey, { params: { apiKeyId } })
      out.answer({ apiKeyId }, () => 'Revoked')
    },
  })
}

function addSigningKeyCommands(program: Command): void {
  const keys = program.command('signing-keys').description('the keys that access tokens are signed with')
  command(keys, 'list', 'list keys that are published', {
    run: async ({ client, out }) => {
      out.answer(await Array.fromAsync(client.each(api.ListSigningKeys)), (rows) =>
        table(rows, [
          { title: 'KEY', of: (key) => key.kid },
          { title: 'STATE', of: (key) => key.state },
          { title: 'MADE', of: (key) => key.createdAt },
          { title: 'GONE', of: (key) => key.goneAt },
        ]),
      )
    },
  })
  command<{ compromised?: true }>(keys, 'rotate', 'change the key; nobody notices', {
    configure: (c) => c.option('--compromised', 'end the old key now, and with it every token it signed'),
    run: async ({ client, flags, out }) => {
      const body = { compromised: flags.compromised ?? false }
      out.answer(await client.call(api.RotateSigningKey, { body }), ({ kid, state }) => `${kid} is ${state}`)
    },
  })
}
