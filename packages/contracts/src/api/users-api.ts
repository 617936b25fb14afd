import { z } from 'zod'
import { Permission, Role } from '../access.ts'
import { TenantId, UserId } from '../id.ts'
import { item, list, none, PageQuery, route } from '../route.ts'

export const Email = z
  .email()
  .max(254)
  .transform((value) => value.toLowerCase())
export const Password = z.string().min(12).max(256)

export const User = z.object({
  id: UserId,
  tenantId: TenantId,
  email: z.string(),
  name: z.string(),
  role: Role,
  status: z.enum(['active', 'suspended']),
  createdAt: z.iso.datetime(),
})
export type User = z.infer<typeof User>

export const Tokens = z.object({
  accessToken: z.string(),
  refreshToken: z.string(),
  tokenType: z.literal('Bearer'),
  /** Seconds. */
  expiresIn: z.int(),
  user: User,
})
export type Tokens = z.infer<typeof Tokens>

export const Login = route({
  name: 'login',
  service: 'users',
  method: 'POST',
  path: '/api/auth/login',
  summary: 'Sign in with e-mail and password.',
  access: { kind: 'public' },
  audit: 'session.sign_in',
  body: z.strictObject({
    email: Email,
    password: z.string().min(1).max(256),
    /** Of the second factor, or a recovery code. */
    code: z.string().trim().min(6).max(20).optional(),
  }),
  answer: item(Tokens),
  problems: [
    'invalid_credentials',
    'user_suspended',
    'second_factor_required',
    'wrong_code',
    'too_many_attempts',
  ],
})

export const Refresh = route({
  name: 'refresh',
  service: 'users',
  method: 'POST',
  path: '/api/auth/refresh',
  summary: 'Exchange a refresh token for new tokens. Using one twice revokes the whole session.',
  access: { kind: 'public' },
  audit: { none: 'A session that is on record goes on; a reused token that ends it is on record by itself.' },
  body: z.strictObject({ refreshToken: z.string().min(1).max(500) }),
  answer: item(Tokens),
  problems: ['invalid_refresh_token'],
})

export const Logout = route({
  name: 'logout',
  service: 'users',
  method: 'POST',
  path: '/api/auth/logout',
  summary: 'End the session of a refresh token.',
  access: { kind: 'public' },
  audit: 'session.sign_out',
  body: z.strictObject({ refreshToken: z.string().min(1).max(500) }),
  answer: none,
})

export const Me = route({
  name: 'me',
  service: 'users',
  method: 'GET',
  path: '/api/auth/me',
  summary: 'Who am I, and what may I do?',
  access: { kind: 'user', permission: 'self' },
  answer: item(User.extend({ permissions: z.array(Permission) })),
})

export const CreateUser = route({
  name: 'createUser',
  service: 'users',
  method: 'POST',
  path: '/api/users',
  summary: 'Make an account in the caller’s tenant.',
  access: { kind: 'user', permission: 'users:manage' },
  audit: 'user.create',
  body: z.strictObject({
    email: Email,
    password: Password,
    name: z.string().trim().min(1).max(64),
    role: Role.default('member'),
  }),
  answer: item(User, 201),
  problems: ['email_taken', 'weak_password'],
})

export const ListUsers = route({
  name: 'listUsers',
  service: 'users',
  method: 'GET',
  path: '/api/users',
  summary: 'The accounts of the caller’s tenant.',
  access: { kind: 'user', permission: 'users:read' },
  query: PageQuery,
  answer: list(User),
})

export const GetUser = route({
  name: 'getUser',
  service: 'users',
  method: 'GET',
  path: '/api/users/:userId',
  summary: 'One account: one’s own, or any of the tenant for who manages users.',
  access: { kind: 'user', permission: 'self' },
  params: z.strictObject({ userId: UserId }),
  answer: item(User),
})

const Session = z.object({
  id: z.guid(),
  /** True for the session that asks. */
  current: z.boolean(),
  createdAt: z.iso.datetime(),
  lastUsedAt: z.iso.datetime(),
  expiresAt: z.iso.datetime(),
})

export const ListSessions = route({
  name: 'listSessions',
  service: 'users',
  method: 'GET',
  path: '/api/users/:userId/sessions',
  summary:
    'The sessions that can still be used: one’s own, or those of any of the tenant for who manages users.',
  access: { kind: 'user', permission: 'account:manage' },
  params: z.strictObject({ userId: UserId }),
  query: PageQuery,
  answer: list(Session),
  problems: ['user_not_found'],
})

export const RevokeSession = route({
  name: 'revokeSession',
  service: 'users',
  method: 'DELETE',
  path: '/api/users/:userId/sessions/:sessionId',
  summary: 'End one session everywhere, open sockets included, within 2 s.',
  access: { kind: 'user', permission: 'account:manage' },
  audit: 'session.revoke',
  params: z.strictObject({ userId: UserId, sessionId: z.guid() }),
  answer: none,
  problems: ['user_not_found', 'session_not_found'],
})

export const RevokeSessions = route({
  name: 'revokeSessions',
  service: 'users',
  method: 'DELETE',
  path: '/api/users/:userId/sessions',
  summary: 'End all sessions of an account but the one that asks; answers how many.',
  access: { kind: 'user', permission: 'account:manage' },
  audit: 'session.revoke_all',
  params: z.strictObject({ userId: UserId }),
  answer: item(z.object({ revoked: z.int() })),
  problems: ['user_not_found'],
})

const ApiKey = z.object({
  id: z.guid(),
  name: z.string(),
  /** What the key may do at most; null: whatever its owner's role may, but for the owner's credentials. */
  scopes: z.array(Permission).nullable(),
  /** The first characters, to recognise it by. */
  prefix: z.string(),
  createdAt: z.iso.datetime(),
  expiresAt: z.iso.datetime().nullable(),
  lastUsedAt: z.iso.datetime().nullable(),
})

export const CreateApiKey = route({
  name: 'createApiKey',
  service: 'users',
  method: 'POST',
  path: '/api/api-keys',
  summary: 'Make an API key for oneself. The key is shown this once and kept only as a hash.',
  access: { kind: 'user', permission: 'account:manage' },
  audit: 'api_key.create',
  body: z.strictObject({
    name: z.string().trim().min(1).max(64),
    expiresInDays: z.int().min(1).max(3650).optional(),
    /** Narrows the key; a scope that the caller does not hold is refused. */
    scopes: z.array(Permission).min(1).max(Permission.options.length).optional(),
  }),
  answer: item(ApiKey.extend({ key: z.string() }), 201),
  problems: ['scope_not_held'],
})

export const RotateApiKey = route({
  name: 'rotateApiKey',
  service: 'users',
  method: 'POST',
  path: '/api/api-keys/:apiKeyId/rotate',
  summary: 'Make the successor of a key: same name, scopes and life. The old one works on for the overlap.',
  access: { kind: 'user', permission: 'account:manage' },
  audit: 'api_key.rotate',
  params: z.strictObject({ apiKeyId: z.guid() }),
  body: z.strictObject({
    /** Seconds; 0 ends the old key at once. */
    overlapSeconds: z.int().min(0).max(2_592_000).default(86_400),
  }),
  answer: item(ApiKey.extend({ key: z.string() }), 201),
  problems: ['api_key_not_found'],
})

export const ListApiKeys = route({
  name: 'listApiKeys',
  service: 'users',
  method: 'GET',
  path: '/api/api-keys',
  summary: 'One’s own API keys, without their secrets.',
  access: { kind: 'user', permission: 'account:manage' },
  query: PageQuery,
  answer: list(ApiKey),
})

export const DeleteApiKey = route({
  name: 'deleteApiKey',
  service: 'users',
  method: 'DELETE',
  path: '/api/api-keys/:apiKeyId',
  summary: 'Revoke an API key.',
  access: { kind: 'user', permission: 'account:manage' },
  audit: 'api_key.delete',
  params: z.strictObject({ apiKeyId: z.guid() }),
  answer: none,
})

export const Jwks = route({
  name: 'jwks',
  service: 'users',
  method: 'GET',
  path: '/api/auth/jwks',
  summary: 'The public keys that access tokens are signed with (RFC 7517).',
  access: { kind: 'public' },
  answer: item(z.object({ keys: z.array(z.looseObject({ kid: z.string(), kty: z.string() })) })),
})

const SigningKey = z.object({
  kid: z.string(),
  /** `next`: published, not in use yet; `retired`: its tokens are still good until `goneAt`. */
  state: z.enum(['next', 'active', 'retired']),
  createdAt: z.iso.datetime(),
  activatesAt: z.iso.datetime().nullable(),
  goneAt: z.iso.datetime().nullable(),
})

export const ListSigningKeys = route({
  name: 'listSigningKeys',
  service: 'users',
  method: 'GET',
  path: '/api/signing-keys',
  summary: 'The keys that access tokens are signed with, the newest first.',
  access: { kind: 'user', permission: 'platform:inspect' },
  query: PageQuery,
  answer: list(SigningKey),
})

export const RotateSigningKey = route({
  name: 'rotateSigningKey',
  service: 'users',
  method: 'POST',
  path: '/api/signing-keys/rotate',
  summary:
    'Make a new signing key. It is published before it is used, so nobody notices; a compromised one ends at once, and all its tokens with it.',
  access: { kind: 'user', permission: 'platform:operate' },
  audit: 'signing_key.rotate',
  body: z.strictObject({ compromised: z.boolean().default(false) }),
  answer: item(SigningKey, 201),
  problems: ['rotation_under_way'],
})

/* Between services. */

/** What has ended before its time. Who hears of one twice has heard of it once. */
export const Revocation = z.discriminatedUnion('kind', [
  /** A session or an API key, by its id. */
  z.object({ kind: z.literal('session'), id: z.string() }),
  /** All tokens of a user of an issue before this one. */
  z.object({ kind: z.literal('user'), id: UserId, epoch: z.int() }),
  /** The signing keys changed: fetch them anew. */
  z.object({ kind: z.literal('keys') }),
])
export type Revocation = z.infer<typeof Revocation>

export const ListRevocations = route({
  name: 'listRevocations',
  service: 'users',
  method: 'GET',
  path: '/internal/revocations',
  summary: 'What was revoked since the cursor, waiting up to `wait` seconds for something new.',
  access: { kind: 'service' },
  query: z.strictObject({
    /** As the last answer gave it; absent: all that matters still. */
    after: z.string().max(4_000).optional(),
    wait: z.coerce.number().int().min(0).max(30).default(0),
  }),
  answer: item(z.object({ cursor: z.string(), revocations: z.array(Revocation) })),
})

export const ExchangeApiKey = route({
  name: 'exchangeApiKey',
  service: 'users',
  method: 'POST',
  path: '/internal/api-keys/exchange',
  summary: 'Turn an API key into a short access token.',
  access: { kind: 'service' },
  body: z.strictObject({ key: z.string().max(200) }),
  answer: item(z.object({ accessToken: z.string(), expiresIn: z.int() })),
  problems: ['invalid_api_key'],
})
