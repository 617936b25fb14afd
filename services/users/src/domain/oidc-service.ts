/* Terminology:
 * - provider: an OpenID Connect issuer by which people of one tenant may sign in (OpenID Connect Core 1.0)
 * - flow: one sign-in at a provider, from where we send somebody there until they are back
 * - identity: who somebody is at an issuer: its subject
 */
import type { UserId } from '@cloudphone/contracts/id'
import type { Database } from '@cloudphone/db/database'
import * as oidc from 'openid-client'
import { findAccount, findCredentials } from '../db/account-repo.ts'
import { findIdentity, insertFlow, insertIdentity, purgeFlows, takeFlow } from '../db/identity-repo.ts'
import { verifyEmail } from '../db/lifecycle-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import { findTenantBySlug } from '../db/tenant-repo.ts'
import { problems } from '../errors.ts'
import { hashOfSecret, type Secrets } from '../secrets.ts'
import type { UsersTelemetry } from '../telemetry.ts'
import type { Account } from './account.ts'
import type { AccountService } from './account-service.ts'
import type { PasswordHasher } from './password-hasher.ts'
import type { Grant, SessionService } from './session-service.ts'

/** A provider as it was set up. */
export interface Provider {
  readonly name: string
  readonly issuer: string
  readonly clientId: string
  readonly clientSecret: string
  readonly tenant: string
  readonly create: boolean
  readonly redirectUris: readonly string[]
}

interface Person {
  readonly issuer: string
  readonly subject: string
  /** Only one that the provider calls verified. */
  readonly email: string | undefined
  readonly name: string | undefined
}

const flowSeconds = 600
const patienceSeconds = 10

/**
 * Sign-in at OpenID providers: authorization code with PKCE (RFC 7636), state and nonce, all kept here; what the client
 * gets is a secret to finish its flow with, so that nobody can be made to finish another's. The provider vouches for the
 * second factor.
 */
export class OidcService {
  readonly #providers: ReadonlyMap<string, Provider>
  readonly #known = new Map<string, oidc.Configuration>()
  readonly #database: Database<UsersSchema>
  readonly #accounts: AccountService
  readonly #sessions: SessionService
  readonly #hasher: PasswordHasher
  readonly #secrets: Secrets
  readonly #telemetry: UsersTelemetry

  constructor(deps: {
    providers: readonly Provider[]
    database: Database<UsersSchema>
    accounts: AccountService
    sessions: SessionService
    hasher: PasswordHasher
    secrets: Secrets
    telemetry: UsersTelemetry
  }) {
    this.#providers = new Map(deps.providers.map((provider) => [provider.name, provider]))
    this.#database = deps.database
    this.#accounts = deps.accounts
    this.#sessions = deps.sessions
    this.#hasher = deps.hasher
    this.#secrets = deps.secrets
    this.#telemetry = deps.telemetry
  }

  /** The providers there are. */
  list(): { name: string; issuer: string }[] {
    return [...this.#providers.values()].map(({ name, issuer }) => ({ name, issuer }))
  }

  /**
   * Begins a flow.
   * @throws ProblemError `oidc_provider_not_found`, `oidc_redirect_not_allowed`, `oidc_provider_unavailable`.
   */
  async start(
    name: string,
    redirectUri: string,
  ): Promise<{ authorizationUrl: string; flow: string; expiresIn: number }> {
    const provider = this.#provider(name)
    if (!isAllowed(redirectUri, provider)) throw problems.oidc_redirect_not_allowed({ redirectUri })
    const configuration = await this.#configurationOf(provider)
    const codeVerifier = oidc.randomPKCECodeVerifier()
    const [state, nonce, flow] = [oidc.randomState(), oidc.randomNonce(), this.#secrets.next()]
    await insertFlow(this.#database.kysely, {
      ...{ flowHash: hashOfSecret(flow), lifeSeconds: flowSeconds },
      ...{ provider: name, state, nonce, codeVerifier, redirectUri },
    })
    const url = oidc.buildAuthorizationUrl(configuration, {
      ...{ redirect_uri: redirectUri, scope: 'openid email profile', state, nonce },
      ...{ code_challenge: await oidc.calculatePKCECodeChallenge(codeVerifier) },
      code_challenge_method: 'S256',
    })
    return { authorizationUrl: url.href, flow, expiresIn: flowSeconds }
  }

  /**
   * Finishes a flow, once, with the query that the provider sent the person back with.
   * @throws ProblemError `oidc_flow_unknown`, `oidc_refused`, `oidc_no_account`, `oidc_provider_unavailable`,
   * `user_suspended`.
   */
  async finish(flow: string, callback: string): Promise<Grant> {
    const begun = await takeFlow(this.#database.kysely, hashOfSecret(flow))
    if (begun === undefined) throw problems.oidc_flow_unknown()
    const provider = this.#provider(begun.provider)
    const back = new URL(begun.redirectUri)
    back.search = callback
    const person = await this.#personOf(provider, back, begun)
    const account = await this.#accountOf(provider, person)
    if (account === undefined) {
      this.#telemetry.signInRefused({ reason: 'oidc' })
      throw problems.oidc_no_account({ provider: provider.name })
    }
    if (account.status !== 'active') {
      this.#telemetry.signInRefused({ reason: 'suspended' })
      throw problems.user_suspended({ userId: account.id })
    }
    return this.#sessions.begin(account)
  }

  /** Forgets flows that nobody finished. */
  async purge(): Promise<void> {
    await purgeFlows(this.#database.kysely)
  }

  #provider(name: string): Provider {
    const provider = this.#providers.get(name)
    if (provider === undefined) throw problems.oidc_provider_not_found({ provider: name })
    return provider
  }

  /** What the provider publishes of itself; asked for at its first use, and again after that has failed. */
  async #configurationOf({ name, issuer, clientId, clientSecret }: Provider): Promise<oidc.Configuration> {
    const known = this.#known.get(name)
    if (known !== undefined) return known
    try {
      const found = await oidc.discovery(new URL(issuer), clientId, clientSecret, undefined, {
        timeout: patienceSeconds,
        // The settings let only an issuer on this machine go without TLS.
        execute: issuer.startsWith('https:') ? [] : [oidc.allowInsecureRequests],
      })
      this.#known.set(name, found)
      return found
    } catch {
      throw problems.oidc_provider_unavailable({ provider: name })
    }
  }

  async #personOf(
    provider: Provider,
    back: URL,
    begun: { state: string; nonce: string; codeVerifier: string },
  ): Promise<Person> {
    const configuration = await this.#configurationOf(provider)
    try {
      const tokens = await oidc.authorizationCodeGrant(configuration, back, {
        ...{ pkceCodeVerifier: begun.codeVerifier, expectedState: begun.state, expectedNonce: begun.nonce },
        idTokenExpected: true,
      })
      const claims = tokens.claims()
      if (claims === undefined) throw new Error('no ID token')
      const told =
        claims.email === undefined
          ? await oidc.fetchUserInfo(configuration, tokens.access_token, claims.sub)
          : claims
      const { email, email_verified: verified, name } = told
      return {
        ...{ issuer: claims.iss, subject: claims.sub },
        email: typeof email === 'string' && verified === true ? email.toLowerCase() : undefined,
        name: typeof name === 'string' ? name.trim().slice(0, 64) : undefined,
      }
    } catch (error) {
      this.#telemetry.signInRefused({ reason: 'oidc' })
      throw problems.oidc_refused({ provider: provider.name, reason: reasonOf(error) })
    }
  }

  /** The account of an identity: linked before, or now by its verified e-mail, or made now if the provider may. */
  async #accountOf(provider: Provider, person: Person): Promise<Account | undefined> {
    const linkedId = await findIdentity(this.#database.kysely, person)
    if (linkedId !== undefined) return this.#inTenant(provider, linkedId)
    const { email } = person
    if (email === undefined) return undefined
    const passwordHash = provider.create ? await this.#hasher.hash(this.#secrets.next()) : undefined
    const userId = await this.#database.transaction(async (tx) => {
      const tenant = await findTenantBySlug(tx, provider.tenant)
      const known = await findCredentials(tx, email)
      if (tenant === undefined || (known !== undefined && known.account.tenantId !== tenant.id))
        return undefined
      const account =
        known?.account ??
        (passwordHash &&
          (await this.#accounts.insert(tx, {
            ...{ tenantId: tenant.id, email, name: person.name || email.slice(0, 64), role: 'member' },
            ...{ passwordHash, emailVerified: true },
          })))
      if (!account) return undefined
      await verifyEmail(tx, { userId: account.id, email })
      // False: the same person finishes two flows at once, and the other was first.
      if (await insertIdentity(tx, { ...person, userId: account.id })) return account.id
      return findIdentity(tx, person)
    })
    if (userId === undefined) return undefined
    this.#telemetry.identityLinked({ userId, issuer: person.issuer })
    return this.#inTenant(provider, userId)
  }

  /** A provider that was given to another tenant lets nobody into the old one. */
  async #inTenant(provider: Provider, userId: UserId): Promise<Account | undefined> {
    const tenant = await findTenantBySlug(this.#database.kysely, provider.tenant)
    const account = await findAccount(this.#database.kysely, userId)
    return account?.tenantId === tenant?.id ? account : undefined
  }
}

/** One of the provider's, or a port of the person's own machine (RFC 8252, section 7.3). */
function isAllowed(redirectUri: string, provider: Provider): boolean {
  if (provider.redirectUris.includes(redirectUri)) return true
  const { protocol, hostname, search, hash, username } = new URL(redirectUri)
  const plain = search === '' && hash === '' && username === ''
  return plain && protocol === 'http:' && (hostname === '127.0.0.1' || hostname === '[::1]')
}

/** The error code of OAuth or of its client; nothing of what was sent. */
function reasonOf(error: unknown): string {
  if (error instanceof oidc.AuthorizationResponseError || error instanceof oidc.ResponseBodyError) {
    return error.error.replaceAll(/[^\w-]/g, '').slice(0, 64)
  }
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' ? code.toLowerCase() : 'the answer was not valid'
}
