/* How people get in, stay themselves, and leave: invitations, passwords, second factors, other providers, lifecycle. */
import { z } from 'zod'
import { Role } from '../access.ts'
import { UserId } from '../id.ts'
import { item, list, none, PageQuery, route } from '../route.ts'
import { Email, Password, Tokens, User } from './users-api.ts'

const Name = z.string().trim().min(1).max(64)
const MailToken = z.string().min(20).max(200)
/** Six digits of an authenticator, or a recovery code. */
const Code = z.string().trim().min(6).max(20)
const userParams = z.strictObject({ userId: UserId })

/* Lifecycle. */

export const UpdateUser = route({
  name: 'updateUser',
  service: 'users',
  method: 'PATCH',
  path: '/api/users/:userId',
  summary: 'Change a name (also one’s own) or a role (who manages users). A changed role holds within 2 s.',
  access: { kind: 'user', permission: 'account:manage' },
  audit: 'user.update',
  params: userParams,
  body: z.strictObject({ name: Name.optional(), role: Role.optional() }),
  answer: item(User),
  problems: ['user_not_found', 'last_admin'],
})

export const SuspendUser = route({
  name: 'suspendUser',
  service: 'users',
  method: 'POST',
  path: '/api/users/:userId/suspend',
  summary: 'Lock an account out: its sessions end, its API keys are refused, nothing new is started for it.',
  access: { kind: 'user', permission: 'users:manage' },
  audit: 'user.suspend',
  params: userParams,
  body: z.strictObject({ reason: z.string().trim().min(1).max(500) }),
  answer: item(User),
  problems: ['user_not_found', 'last_admin'],
})

export const ActivateUser = route({
  name: 'activateUser',
  service: 'users',
  method: 'POST',
  path: '/api/users/:userId/activate',
  summary: 'Lift a suspension.',
  access: { kind: 'user', permission: 'users:manage' },
  audit: 'user.activate',
  params: userParams,
  answer: item(User),
  problems: ['user_not_found'],
})

export const DeleteUser = route({
  name: 'deleteUser',
  service: 'users',
  method: 'DELETE',
  path: '/api/users/:userId',
  summary:
    'Delete an account: who it was is forgotten, its e-mail is free again, its sessions and keys are gone.',
  access: { kind: 'user', permission: 'users:manage' },
  audit: 'user.delete',
  params: userParams,
  answer: none,
  problems: ['user_not_found', 'last_admin'],
})

export const UnlockUser = route({
  name: 'unlockUser',
  service: 'users',
  method: 'POST',
  path: '/api/users/:userId/unlock',
  summary: 'Forget the wrong attempts to sign in to an account, so that it is not locked out any more.',
  access: { kind: 'user', permission: 'users:manage' },
  audit: 'user.unlock',
  params: userParams,
  answer: none,
  problems: ['user_not_found'],
})

/* Passwords and e-mails. */

export const ChangePassword = route({
  name: 'changePassword',
  service: 'users',
  method: 'POST',
  path: '/api/auth/password',
  summary: 'Change one’s password; all other sessions end.',
  access: { kind: 'user', permission: 'account:manage' },
  audit: 'password.change',
  body: z.strictObject({ oldPassword: z.string().min(1).max(256), newPassword: Password }),
  answer: none,
  problems: ['wrong_password', 'weak_password', 'too_many_attempts'],
})

export const ForgotPassword = route({
  name: 'forgotPassword',
  service: 'users',
  method: 'POST',
  path: '/api/auth/password/forgot',
  summary: 'Ask for a mail to set a new password. The answer is the same for an e-mail that nobody has.',
  access: { kind: 'public' },
  audit: { none: 'a mail is sent, if there is whom to; the change is on record when it is made' },
  body: z.strictObject({ email: Email }),
  answer: none,
  problems: ['too_many_attempts'],
})

export const ResetPassword = route({
  name: 'resetPassword',
  service: 'users',
  method: 'POST',
  path: '/api/auth/password/reset',
  summary: 'Set a new password by the token of a mail; all sessions end.',
  access: { kind: 'public' },
  audit: 'password.reset',
  body: z.strictObject({ token: MailToken, password: Password }),
  answer: none,
  problems: ['invalid_mail_token', 'weak_password'],
})

export const RequestEmailVerification = route({
  name: 'requestEmailVerification',
  service: 'users',
  method: 'POST',
  path: '/api/auth/email/verification',
  summary: 'Ask for a mail that proves one’s e-mail.',
  access: { kind: 'user', permission: 'account:manage' },
  audit: { none: 'a mail is sent; the change is on record when it is made' },
  answer: none,
  problems: ['too_many_attempts'],
})

export const VerifyEmail = route({
  name: 'verifyEmail',
  service: 'users',
  method: 'POST',
  path: '/api/auth/email/verification/confirm',
  summary: 'Prove an e-mail by the token of a mail.',
  access: { kind: 'public' },
  audit: 'email.verify',
  body: z.strictObject({ token: MailToken }),
  answer: none,
  problems: ['invalid_mail_token'],
})

/* Ways in. */

export const Register = route({
  name: 'register',
  service: 'users',
  method: 'POST',
  path: '/api/auth/register',
  summary: 'Where registration is open: ask for a mail that lets one make an account.',
  access: { kind: 'public' },
  audit: { none: 'a mail is sent; the account is on record when it is made' },
  body: z.strictObject({ email: Email }),
  answer: none,
  problems: ['registration_closed', 'too_many_attempts'],
})

const Invitation = z.object({
  id: z.guid(),
  email: z.string(),
  role: Role,
  createdAt: z.iso.datetime(),
  expiresAt: z.iso.datetime(),
})

export const CreateInvitation = route({
  name: 'createInvitation',
  service: 'users',
  method: 'POST',
  path: '/api/invitations',
  summary: 'Invite somebody into the caller’s tenant by e-mail.',
  access: { kind: 'user', permission: 'users:manage' },
  audit: 'invitation.create',
  body: z.strictObject({ email: Email, role: Role.default('member') }),
  answer: item(Invitation, 201),
  problems: ['email_taken', 'registration_closed'],
})

export const ListInvitations = route({
  name: 'listInvitations',
  service: 'users',
  method: 'GET',
  path: '/api/invitations',
  summary: 'Invitations that can still be accepted.',
  access: { kind: 'user', permission: 'users:read' },
  query: PageQuery,
  answer: list(Invitation),
})

export const RevokeInvitation = route({
  name: 'revokeInvitation',
  service: 'users',
  method: 'DELETE',
  path: '/api/invitations/:invitationId',
  summary: 'Take an invitation back.',
  access: { kind: 'user', permission: 'users:manage' },
  audit: 'invitation.revoke',
  params: z.strictObject({ invitationId: z.guid() }),
  answer: none,
  problems: ['invitation_not_found'],
})

export const AcceptInvitation = route({
  name: 'acceptInvitation',
  service: 'users',
  method: 'POST',
  path: '/api/auth/invitations/accept',
  summary: 'Make the account that an invitation is for.',
  access: { kind: 'public' },
  audit: 'user.create',
  body: z.strictObject({ token: MailToken, name: Name, password: Password }),
  answer: item(User, 201),
  problems: ['invalid_mail_token', 'email_taken', 'weak_password', 'registration_closed'],
})

/* Second factor. */

export const GetSecondFactor = route({
  name: 'getSecondFactor',
  service: 'users',
  method: 'GET',
  path: '/api/auth/second-factor',
  summary: 'Whether one’s account has a second factor, and how many recovery codes are left.',
  access: { kind: 'user', permission: 'account:manage' },
  answer: item(z.object({ state: z.enum(['off', 'enrolled', 'on']), recoveryCodesLeft: z.int() })),
})

export const EnrolSecondFactor = route({
  name: 'enrolSecondFactor',
  service: 'users',
  method: 'POST',
  path: '/api/auth/second-factor',
  summary: 'Begin with an authenticator (RFC 6238): its secret, to be confirmed by a code.',
  access: { kind: 'user', permission: 'account:manage' },
  audit: 'second_factor.enrol',
  body: z.strictObject({ password: z.string().min(1).max(256) }),
  answer: item(z.object({ secret: z.string(), otpauthUrl: z.string() }), 201),
  problems: ['second_factor_on', 'wrong_password', 'too_many_attempts'],
})

const RecoveryCodes = z.object({ recoveryCodes: z.array(z.string()) })

export const ConfirmSecondFactor = route({
  name: 'confirmSecondFactor',
  service: 'users',
  method: 'POST',
  path: '/api/auth/second-factor/confirm',
  summary: 'Switch the second factor on by its first code; shows the recovery codes this once.',
  access: { kind: 'user', permission: 'account:manage' },
  audit: 'second_factor.confirm',
  body: z.strictObject({ code: Code }),
  answer: item(RecoveryCodes),
  problems: ['second_factor_off', 'second_factor_on', 'wrong_code', 'too_many_attempts'],
})

export const RenewRecoveryCodes = route({
  name: 'renewRecoveryCodes',
  service: 'users',
  method: 'POST',
  path: '/api/auth/second-factor/recovery-codes',
  summary: 'Replace all recovery codes; shows the new ones this once.',
  access: { kind: 'user', permission: 'account:manage' },
  audit: 'second_factor.renew_codes',
  body: z.strictObject({ code: Code }),
  answer: item(RecoveryCodes),
  problems: ['second_factor_off', 'wrong_code', 'too_many_attempts'],
})

export const DisableSecondFactor = route({
  name: 'disableSecondFactor',
  service: 'users',
  method: 'POST',
  path: '/api/auth/second-factor/disable',
  summary: 'Switch one’s second factor off.',
  access: { kind: 'user', permission: 'account:manage' },
  audit: 'second_factor.disable',
  body: z.strictObject({ code: Code }),
  answer: none,
  problems: ['second_factor_off', 'wrong_code', 'too_many_attempts'],
})

export const RemoveSecondFactor = route({
  name: 'removeSecondFactor',
  service: 'users',
  method: 'DELETE',
  path: '/api/users/:userId/second-factor',
  summary: 'Switch the second factor of an account off whose person has lost it; its sessions end.',
  access: { kind: 'user', permission: 'users:manage' },
  audit: 'second_factor.remove',
  params: userParams,
  answer: none,
  problems: ['user_not_found'],
})

/* Sign-in at another provider. */

export const ListOidcProviders = route({
  name: 'listOidcProviders',
  service: 'users',
  method: 'GET',
  path: '/api/auth/oidc',
  summary: 'The OpenID providers by which one can sign in.',
  access: { kind: 'public' },
  answer: item(z.object({ providers: z.array(z.object({ name: z.string(), issuer: z.string() })) })),
})

export const StartOidc = route({
  name: 'startOidc',
  service: 'users',
  method: 'POST',
  path: '/api/auth/oidc/:provider/start',
  summary: 'Begin a sign-in at a provider: where to send the person, and a secret to finish with.',
  access: { kind: 'public' },
  audit: { none: 'nobody has signed in yet' },
  params: z.strictObject({ provider: z.string().max(64) }),
  body: z.strictObject({ redirectUri: z.url().max(500) }),
  answer: item(z.object({ authorizationUrl: z.string(), flow: z.string(), expiresIn: z.int() }), 201),
  problems: ['oidc_provider_not_found', 'oidc_redirect_not_allowed', 'oidc_provider_unavailable'],
})

export const FinishOidc = route({
  name: 'finishOidc',
  service: 'users',
  method: 'POST',
  path: '/api/auth/oidc/finish',
  summary: 'Finish it with the query that the provider has sent the person back with.',
  access: { kind: 'public' },
  audit: 'session.sign_in',
  body: z.strictObject({ flow: z.string().min(20).max(200), callback: z.string().min(1).max(4_000) }),
  answer: item(Tokens),
  problems: [
    'oidc_flow_unknown',
    'oidc_refused',
    'oidc_no_account',
    'oidc_provider_unavailable',
    'user_suspended',
  ],
})
