import type { Role } from '@cloudphone/contracts/access'
import * as api from '@cloudphone/contracts/api/identity-api'
import * as tenants from '@cloudphone/contracts/api/tenants-api'
import { Me } from '@cloudphone/contracts/api/users-api'
import { TenantId, UserId } from '@cloudphone/contracts/id'
import type { Command } from 'commander'
import { ask, confirm } from '../ask.ts'
import { argument, command } from '../command.ts'
import { facts, table } from '../output.ts'

/** password, email, register, invitations, second-factor, tenants, and what becomes of users. */
export function addIdentityCommands(program: Command): void {
  addPasswordCommands(program)
  addInvitationCommands(program)
  addSecondFactorCommands(program)
  addLifecycleCommands(program)
  addTenantCommands(program)
}

const newPassword = async (given: string | undefined) => given ?? ask('New password: ', 'hidden')
const tokenOption = (c: Command) => c.requiredOption('--token <token>', 'as it stands in the mail')

function addPasswordCommands(program: Command): void {
  const password = program.command('password').description('one’s password')
  command<{ old?: string; new?: string }>(password, 'change', 'change it; all other sessions end', {
    configure: (c) =>
      c
        .option('--old <password>', 'asked for when absent')
        .option('--new <password>', '12 characters at least; asked for when absent'),
    run: async ({ client, flags, out }) => {
      const oldPassword = flags.old ?? (await ask('Old password: ', 'hidden'))
      const body = { oldPassword, newPassword: await newPassword(flags.new) }
      await client.call(api.ChangePassword, { body })
      out.answer({ changed: true }, () => 'Changed')
    },
  })
  command<{ email?: string }>(password, 'forgot', 'have a mail sent to set a new one', {
    configure: (c) => c.option('--email <email>', 'of the account; asked for when absent'),
    run: async ({ client, flags, out }) => {
      const email = flags.email ?? (await ask('E-mail: '))
      await client.call(api.ForgotPassword, { body: { email } })
      out.answer({ email }, () => `If ${email} has an account, a mail is on its way`)
    },
  })
  command<{ token: string; new?: string }>(password, 'reset', 'set a new one by the token of the mail', {
    configure: (c) => tokenOption(c).option('--new <password>', 'asked for when absent'),
    run: async ({ client, flags, out }) => {
      const body = { token: flags.token, password: await newPassword(flags.new) }
      await client.call(api.ResetPassword, { body })
      out.answer({ changed: true }, () => 'Changed; all sessions have ended')
    },
  })
  const email = program.command('email').description('proof that one’s e-mail is one’s own')
  command(email, 'request', 'have a mail sent that proves it', {
    run: async ({ client, out }) => {
      await client.call(api.RequestEmailVerification)
      out.answer({ requested: true }, () => 'A mail is on its way')
    },
  })
  command<{ token: string }>(email, 'verify', 'prove it by the token of the mail', {
    configure: tokenOption,
    run: async ({ client, flags, out }) => {
      await client.call(api.VerifyEmail, { body: { token: flags.token } })
      out.answer({ verified: true }, () => 'Proved')
    },
  })
}

function addInvitationCommands(program: Command): void {
  command<{ email?: string }>(
    program,
    'register',
    'where that is open: have a mail sent to make an account',
    {
      configure: (c) => c.option('--email <email>', 'asked for when absent'),
      run: async ({ client, flags, out }) => {
        const email = flags.email ?? (await ask('E-mail: '))
        await client.call(api.Register, { body: { email } })
        out.answer({ email }, () => `A mail is on its way to ${email}`)
      },
    },
  )
  const invitations = program.command('invitations').description('accounts that are not made yet')
  command<{ role: string }>(invitations, 'create', 'invite somebody into the tenant', {
    configure: (c) =>
      c.argument('<email>').option('--role <role>', 'admin, operator, member or viewer', 'member'),
    run: async ({ client, args, flags, out }) => {
      const body = { email: argument(args, 0), role: flags.role as Role }
      const made = await client.call(api.CreateInvitation, { body })
      out.answer(made, ({ email, role, expiresAt }) => `Invited ${email} (${role}) until ${expiresAt}`)
    },
  })
  command(invitations, 'list', 'list those that can still be accepted', {
    run: async ({ client, out }) => {
      out.answer(await Array.fromAsync(client.each(api.ListInvitations)), (rows) =>
        table(rows, [
          { title: 'ID', of: (one) => one.id },
          { title: 'E-MAIL', of: (one) => one.email },
          { title: 'ROLE', of: (one) => one.role },
          { title: 'EXPIRES', of: (one) => one.expiresAt },
        ]),
      )
    },
  })
  command(invitations, 'revoke', 'take one back', {
    configure: (c) => c.argument('<invitation-id>'),
    run: async ({ client, args, out }) => {
      const invitationId = argument(args, 0)
      await client.call(api.RevokeInvitation, { params: { invitationId } })
      out.answer({ invitationId }, () => 'Taken back')
    },
  })
  command<{ token: string; name?: string; password?: string }>(invitations, 'accept', 'make the account', {
    configure: (c) =>
      tokenOption(c)
        .option('--name <name>', 'how to call you; asked for when absent')
        .option('--password <password>', '12 characters at least; asked for when absent'),
    run: async ({ client, flags, out }) => {
      const name = flags.name ?? (await ask('Name: '))
      const body = { token: flags.token, name, password: await newPassword(flags.password) }
      out.answer(await client.call(api.AcceptInvitation, { body }), ({ email, role }) => `${email} (${role})`)
    },
  })
}

function addSecondFactorCommands(program: Command): void {
  const factor = program
    .command('second-factor')
    .description('codes of an authenticator, beside the password')
  const code = async (given: string | undefined) => given ?? ask('Code: ')
  const codeOption = (c: Command) => c.option('--code <code>', 'of the authenticator; asked for when absent')
  const shown = ({ recoveryCodes }: { recoveryCodes: readonly string[] }) =>
    `Keep these recovery codes; each lets you in once without the authenticator:\n${recoveryCodes.join('\n')}`
  command(factor, 'status', 'whether there is one', {
    isDefault: true,
    run: async ({ client, out }) => {
      out.answer(await client.call(api.GetSecondFactor), ({ state, recoveryCodesLeft }) =>
        facts([
          ['second factor', state],
          ['recovery codes left', String(recoveryCodesLeft)],
        ]),
      )
    },
  })
  command<{ password?: string }>(factor, 'enrol', 'get a secret for the authenticator', {
    configure: (c) => c.option('--password <password>', 'asked for when absent'),
    run: async ({ client, flags, out }) => {
      const password = flags.password ?? (await ask('Password: ', 'hidden'))
      const made = await client.call(api.EnrolSecondFactor, { body: { password } })
      out.answer(
        made,
        ({ secret, otpauthUrl }) =>
          `${secret}\n${otpauthUrl}\nType it into the authenticator, then: cloudphone second-factor confirm`,
      )
    },
  })
  command<{ code?: string }>(factor, 'confirm', 'switch it on by its first code', {
    configure: codeOption,
    run: async ({ client, flags, out }) => {
      out.answer(
        await client.call(api.ConfirmSecondFactor, { body: { code: await code(flags.code) } }),
        shown,
      )
    },
  })
  command<{ code?: string }>(factor, 'recovery-codes', 'replace the recovery codes', {
    configure: codeOption,
    run: async ({ client, flags, out }) => {
      out.answer(await client.call(api.RenewRecoveryCodes, { body: { code: await code(flags.code) } }), shown)
    },
  })
  command<{ code?: string }>(factor, 'disable', 'switch it off', {
    configure: codeOption,
    run: async ({ client, flags, out }) => {
      await client.call(api.DisableSecondFactor, { body: { code: await code(flags.code) } })
      out.answer({ state: 'off' }, () => 'Switched off')
    },
  })
}

function addLifecycleCommands(program: Command): void {
  const users = program.commands.find((one) => one.name() === 'users') ?? program.command('users')
  const who = (c: Command) => c.argument('<user-id>', 'whose account')
  const idOf = (args: readonly string[]) => ({ userId: UserId.parse(argument(args, 0)) })
  command<{ name?: string; role?: string }>(users, 'update', 'change name or role', {
    configure: (c) =>
      c
        .argument('[user-id]', 'whose account (default: one’s own)')
        .option('--name <name>', 'how to call its person')
        .option('--role <role>', 'admin, operator, member or viewer'),
    run: async ({ client, args, flags, out }) => {
      const userId = args[0] === undefined ? (await client.call(Me)).id : UserId.parse(args[0])
      const body = {
        ...(flags.name !== undefined && { name: flags.name }),
        ...(flags.role !== undefined && { role: flags.role as Role }),
      }
      out.answer(await client.call(api.UpdateUser, { params: { userId }, body }), (user) =>
        facts([
          ['email', user.email],
          ['name', user.name],
          ['role', user.role],
        ]),
      )
    },
  })
  command<{ reason: string }>(users, 'suspend', 'lock an account out', {
    configure: (c) => who(c).requiredOption('--reason <reason>', 'for the record'),
    run: async ({ client, args, flags, out }) => {
      const input = { params: idOf(args), body: { reason: flags.reason } }
      out.answer(await client.call(api.SuspendUser, input), ({ email }) => `Suspended ${email}`)
    },
  })
  command(users, 'activate', 'lift a suspension', {
    configure: who,
    run: async ({ client, args, out }) => {
      const user = await client.call(api.ActivateUser, { params: idOf(args) })
      out.answer(user, ({ email }) => `Activated ${email}`)
    },
  })
  command<{ yes?: true }>(users, 'delete', 'delete an account for good', {
    configure: (c) => who(c).option('--yes', 'do not ask'),
    run: async ({ client, args, flags, out }) => {
      await confirm(`Delete the account ${argument(args, 0)} for good?`, flags)
      await client.call(api.DeleteUser, { params: idOf(args) })
      out.answer(idOf(args), () => 'Deleted')
    },
  })
  command(users, 'unlock', 'forget wrong attempts to sign in', {
    configure: who,
    run: async ({ client, args, out }) => {
      await client.call(api.UnlockUser, { params: idOf(args) })
      out.answer(idOf(args), () => 'Unlocked')
    },
  })
  command(users, 'remove-second-factor', 'for who has lost authenticator and recovery codes', {
    configure: who,
    run: async ({ client, args, out }) => {
      await client.call(api.RemoveSecondFactor, { params: idOf(args) })
      out.answer(idOf(args), () => 'Removed; the sessions of the account have ended')
    },
  })
}

function addTenantCommands(program: Command): void {
  const group = program.command('tenants').description('those who share the platform')
  const which = (c: Command) => c.argument('<tenant-id>')
  const paramsOf = (args: readonly string[]) => ({ tenantId: TenantId.parse(argument(args, 0)) })
  command<{ name?: string; adminEmail: string }>(group, 'create', 'make one and invite its administrator', {
    configure: (c) =>
      c
        .argument('<slug>', 'lower case letters, digits and hyphens')
        .requiredOption('--admin-email <email>', 'whom to invite')
        .option('--name <name>', 'how to call it (default: the slug)'),
    run: async ({ client, args, flags, out }) => {
      const slug = argument(args, 0)
      const body = { slug, name: flags.name ?? slug, adminEmail: flags.adminEmail }
      const made = await client.call(tenants.CreateTenant, { body })
      out.answer(made, ({ id }) => `Made ${slug} ${id}; a mail to ${body.adminEmail} is on its way`)
    },
  })
  command(group, 'list', 'list tenants', {
    run: async ({ client, out }) => {
      out.answer(await Array.fromAsync(client.each(tenants.ListTenants)), (rows) =>
        table(rows, [
          { title: 'ID', of: (one) => one.id },
          { title: 'SLUG', of: (one) => one.slug },
          { title: 'NAME', of: (one) => one.name, cut: true },
          { title: 'STATUS', of: (one) => one.status },
        ]),
      )
    },
  })
  command(group, 'rename', 'call it by another name', {
    configure: (c) => which(c).argument('<name>'),
    run: async ({ client, args, out }) => {
      const input = { params: paramsOf(args), body: { name: argument(args, 1) } }
      out.answer(await client.call(tenants.RenameTenant, input), ({ name }) => name)
    },
  })
  command(group, 'suspend', 'lock all its accounts out', {
    configure: which,
    run: async ({ client, args, out }) => {
      const tenant = await client.call(tenants.SuspendTenant, { params: paramsOf(args) })
      out.answer(tenant, ({ slug }) => `Suspended ${slug}`)
    },
  })
  command(group, 'activate', 'let its accounts in again', {
    configure: which,
    run: async ({ client, args, out }) => {
      const tenant = await client.call(tenants.ActivateTenant, { params: paramsOf(args) })
      out.answer(tenant, ({ slug }) => `Activated ${slug}`)
    },
  })
}
