import { z } from 'zod'
import { Permission, Role } from '../access.ts'
import { TenantId, UserId } from '../id.ts'
import { item, list, none, PageQuery, route } from '../route.ts'

const Email = z
  .email()
  .max(254)
  .transform((value) => value.toLowerCase())
const Password = z.string().min(12).max(256)

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

const Tokens = z.object({
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
  body: z.strictObject({ email: Email, password: z.string().min(1).max(256) }),
  answer: item(Tokens),
  problems: ['invalid_credentials', 'user_suspended'],
})

export const Refresh = route({
  name: 'refresh',
  service: 'users',
  method: 'POST',
  path: '/api/auth/refresh',
  summary: 'Exchange a refresh token for new tokens. Using one twice revokes the whole session.',
  access: { kind: 'public' },
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
  access: { kind: 'user', permission: 'users:manage' },
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

const ApiKey = z.object({
  id: z.guid(),
  name: z.string(),
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
  access: { kind: 'user', permission: 'self' },
  body: z.strictObject({
    name: z.string().trim().min(1).max(64),
    expiresInDays: z.int().min(1).max(3650).optional(),
  }),
  answer: item(ApiKey.extend({ key: z.string() }), 201),
})

export const ListApiKeys = route({
  name: 'listApiKeys',
  service: 'users',
  method: 'GET',
  path: '/api/api-keys',
  summary: 'One’s own API keys, without their secrets.',
  access: { kind: 'user', permission: 'self' },
  query: PageQuery,
  answer: list(ApiKey),
})

export const DeleteApiKey = route({
  name: 'deleteApiKey',
  service: 'users',
  method: 'DELETE',
  path: '/api/api-keys/:apiKeyId',
  summary: 'Revoke an API key.',
  access: { kind: 'user', permission: 'self' },
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

/* Between services. */

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
