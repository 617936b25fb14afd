import * as api from '@cloudphone/contracts/api/identity-api'
import { decodeCursor, pageOf } from '@cloudphone/runtime/cursor'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { CredentialService } from '../domain/credential-service.ts'
import type { InvitationService } from '../domain/invitation-service.ts'
import type { LifecycleService } from '../domain/lifecycle-service.ts'
import type { OidcService } from '../domain/oidc-service.ts'
import type { SecondFactorService } from '../domain/second-factor-service.ts'
import { viewOfAccount, viewOfGrant } from './account.view.ts'
import { viewOfInvitation } from './identity.view.ts'

interface IdentityServices {
  readonly lifecycle: LifecycleService
  readonly credentials: CredentialService
  readonly invitations: InvitationService
  readonly factors: SecondFactorService
  readonly oidc: OidcService
}

/** How people get in, stay themselves, and leave, over HTTP. */
export function identityRoutes(services: IdentityServices): Binding[] {
  return [
    ...lifecycleRoutes(services),
    ...credentialRoutes(services),
    ...invitationRoutes(services),
    ...factorRoutes(services),
    ...oidcRoutes(services),
  ]
}

function lifecycleRoutes({ lifecycle, factors }: IdentityServices): Binding[] {
  return [
    bind(api.UpdateUser, async ({ caller, params, body }) =>
      viewOfAccount(await lifecycle.update(caller, params.userId, body)),
    ),
    bind(api.SuspendUser, async ({ caller, params, body }) =>
      viewOfAccount(await lifecycle.suspend(caller, params.userId, body.reason)),
    ),
    bind(api.ActivateUser, async ({ caller, params }) =>
      viewOfAccount(await lifecycle.activate(caller, params.userId)),
    ),
    bind(api.DeleteUser, async ({ caller, params }) => {
      await lifecycle.delete(caller, params.userId)
      return undefined
    }),
    bind(api.UnlockUser, async ({ caller, params }) => {
      await lifecycle.unlock(caller, params.userId)
      return undefined
    }),
    bind(api.RemoveSecondFactor, async ({ caller, params }) => {
      await factors.remove(caller, params.userId)
      return undefined
    }),
  ]
}

function credentialRoutes({ credentials }: IdentityServices): Binding[] {
  return [
    bind(api.ChangePassword, async ({ caller, body }) => {
      await credentials.changePassword(caller, body)
      return undefined
    }),
    bind(api.ForgotPassword, async ({ body, clientAddress }) => {
      await credentials.forgot(body.email, clientAddress())
      return undefined
    }),
    bind(api.ResetPassword, async ({ body }) => {
      await credentials.reset(body.token, body.password)
      return undefined
    }),
    bind(api.RequestEmailVerification, async ({ caller }) => {
      await credentials.requestVerification(caller)
      return undefined
    }),
    bind(api.VerifyEmail, async ({ body }) => {
      await credentials.verifyEmail(body.token)
      return undefined
    }),
  ]
}

function invitationRoutes({ invitations }: IdentityServices): Binding[] {
  return [
    bind(api.Register, async ({ body, clientAddress }) => {
      await invitations.register(body.email, clientAddress())
      return undefined
    }),
    bind(api.CreateInvitation, async ({ caller, body }) =>
      viewOfInvitation(await invitations.invite(caller, body)),
    ),
    bind(api.ListInvitations, async ({ caller, query: { cursor, limit } }) => {
      const rows = await invitations.list(caller, { beforeId: decodeCursor(cursor), limit })
      return pageOf(rows, limit, viewOfInvitation, ({ id }) => id)
    }),
    bind(api.RevokeInvitation, async ({ caller, params }) => {
      await invitations.revoke(caller, params.invitationId)
      return undefined
    }),
    bind(api.AcceptInvitation, async ({ body }) => viewOfAccount(await invitations.accept(body))),
  ]
}

function factorRoutes({ factors }: IdentityServices): Binding[] {
  return [
    bind(api.GetSecondFactor, ({ caller }) => factors.state(caller)),
    bind(api.EnrolSecondFactor, ({ caller, body }) => factors.enrol(caller, body.password)),
    bind(api.ConfirmSecondFactor, async ({ caller, body }) => ({
      recoveryCodes: await factors.confirm(caller, body.code),
    })),
    bind(api.RenewRecoveryCodes, async ({ caller, body }) => ({
      recoveryCodes: await factors.renewRecoveryCodes(caller, body.code),
    })),
    bind(api.DisableSecondFactor, async ({ caller, body }) => {
      await factors.disable(caller, body.code)
      return undefined
    }),
  ]
}

function oidcRoutes({ oidc }: IdentityServices): Binding[] {
  return [
    bind(api.ListOidcProviders, async () => ({ providers: oidc.list() })),
    bind(api.StartOidc, ({ params, body }) => oidc.start(params.provider, body.redirectUri)),
    bind(api.FinishOidc, async ({ body }) => viewOfGrant(await oidc.finish(body.flow, body.callback))),
  ]
}
