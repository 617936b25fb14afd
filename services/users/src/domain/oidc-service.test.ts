import { afterAll, beforeAll, expect, test } from 'vitest'
import { type OidcServer, oidcClient, oidcRedirect, startOidcServer } from '../testing/oidc-server.ts'
import { openUsersRoom, type UsersRoom } from '../testing/users-room.ts'

let server: OidcServer
let room: UsersRoom
beforeAll(async () => {
  server = await startOidcServer()
  const provider = { ...oidcClient, issuer: server.issuer, redirectUris: [] }
  room = await openUsersRoom({
    providers: [
      { ...provider, name: 'link', tenant: 'acme', create: false },
      { ...provider, name: 'create', tenant: 'default', create: true },
      { ...provider, name: 'gone', tenant: 'acme', create: false, issuer: 'http://127.0.0.1:1' },
    ],
  })
})
afterAll(async () => {
  await room?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
})

const person = (email: string, verified = true) => ({ email, email_verified: verified, name: 'Mei Lin' })

async function signIn(provider: string, who: ReturnType<typeof person>) {
  const { authorizationUrl, flow } = await room.oidc.start(provider, oidcRedirect)
  return room.oidc.finish(flow, await server.visit(authorizationUrl, who))
}

test('who has an account with the verified e-mail signs in to it, also when the e-mail has changed there', async () => {
  const account = await room.account('linked@example.com', 'operator', 'acme')
  const grant = await signIn('link', person('linked@example.com'))
  expect(grant.account).toMatchObject({ id: account.id, role: 'operator' })
  await room.sessions.refresh(grant.refreshToken)
  expect((await signIn('link', person('linked@example.com', false))).account.id).toBe(account.id)
})

test('an e-mail that the provider has not verified lets nobody into an account', async () => {
  await room.account('victim@example.com', 'admin', 'acme')
  await expect(signIn('link', person('victim@example.com', false))).rejects.toMatchObject({
    status: 403,
    code: 'oidc_no_account',
  })
})

test('the provider of one tenant lets nobody into another', async () => {
  await room.account('elsewhere@example.com', 'admin', 'globex')
  for (const provider of ['link', 'create']) {
    await expect(signIn(provider, person('elsewhere@example.com'))).rejects.toMatchObject({
      code: 'oidc_no_account',
    })
  }
})

test('who has no account gets one only where the provider may make them', async () => {
  await room.account('somebody@example.com')
  await expect(signIn('link', person('fresh@example.com'))).rejects.toMatchObject({ code: 'oidc_no_account' })
  const { account } = await signIn('create', person('fresh@example.com'))
  expect(account).toMatchObject({ email: 'fresh@example.com', name: 'Mei Lin', role: 'member' })
  expect((await signIn('create', person('fresh@example.com'))).account.id).toBe(account.id)
  expect((await room.events()).filter((event) => event.aggregate_id === account.id)).toHaveLength(1)
  const records = await room.audit.search({ actor: account.id, limit: 10, after: undefined })
  expect(records.map(({ verb }) => verb)).toEqual(['session.sign_in', 'session.sign_in', 'user.create'])
})

test('a suspended account stays out', async () => {
  const account = await room.account('out@example.com', 'member', 'acme')
  await room.suspend(account)
  await expect(signIn('link', person('out@example.com'))).rejects.toMatchObject({ code: 'user_suspended' })
})

test('a flow is finished once, by who began it, and within ten minutes', async () => {
  await room.account('once@example.com', 'member', 'acme')
  const { authorizationUrl, flow } = await room.oidc.start('link', oidcRedirect)
  const callback = await server.visit(authorizationUrl, person('once@example.com'))
  const other = await room.oidc.start('link', oidcRedirect)
  // The state in the answer is that of another flow: somebody wants to be signed in where they did not begin.
  await expect(room.oidc.finish(other.flow, callback)).rejects.toMatchObject({ code: 'oidc_refused' })
  await room.oidc.finish(flow, callback)
  const unknown = { status: 404, code: 'oidc_flow_unknown' }
  await expect(room.oidc.finish(flow, callback)).rejects.toMatchObject(unknown)
  const late = await room.oidc.start('link', oidcRedirect)
  await room.clock.advance(601_000)
  await expect(room.oidc.finish(late.flow, callback)).rejects.toMatchObject(unknown)
})

test.each([
  ['?error=access_denied', 'access_denied'],
  ['?code=forged', undefined],
  ['', undefined],
])('what comes back as "%s" is refused', async (query, reason) => {
  const { authorizationUrl, flow } = await room.oidc.start('link', oidcRedirect)
  const state = new URL(authorizationUrl).searchParams.get('state') ?? ''
  const iss = encodeURIComponent(server.issuer)
  const callback = query === '' ? '?' : `${query}&state=${state}&iss=${iss}`
  await expect(room.oidc.finish(flow, callback)).rejects.toMatchObject({
    ...{ status: 403, code: 'oidc_refused' },
    ...(reason !== undefined && { members: { reason } }),
  })
})

test('people are sent back only to this machine of theirs, or where the provider was told', async () => {
  for (const redirectUri of [
    'https://evil.example/callback',
    'http://127.0.0.1.evil.example/',
    'http://u@127.0.0.1/',
  ]) {
    await expect(room.oidc.start('link', redirectUri)).rejects.toMatchObject({
      status: 422,
      code: 'oidc_redirect_not_allowed',
    })
  }
})

test('a provider that does not answer is a 503, an unknown one a 404', async () => {
  await expect(room.oidc.start('gone', oidcRedirect)).rejects.toMatchObject({
    status: 503,
    code: 'oidc_provider_unavailable',
  })
  await expect(room.oidc.start('nobody', oidcRedirect)).rejects.toMatchObject({ status: 404 })
})
