import { once } from 'node:events'
import { createServer } from 'node:http'
import { Provider } from 'oidc-provider'

/** A person at the provider. */
export interface OidcPerson {
  readonly email: string
  readonly email_verified: boolean
  readonly name: string
}

/** A real OpenID provider on this machine, with a browser that walks through its pages. */
export interface OidcServer extends AsyncDisposable {
  readonly issuer: string
  /** Signs in there as this person and agrees; the query with which the provider sends the browser back. */
  visit(authorizationUrl: string, person: OidcPerson): Promise<string>
}

export const oidcClient = { clientId: 'cloudphone', clientSecret: 'a secret of the test' }
export const oidcRedirect = 'http://127.0.0.1:7777/callback'

/** Starts it. Its accounts are whoever comes: their id is the e-mail, as it was first typed. */
export async function startOidcServer(): Promise<OidcServer> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' ? address?.port : undefined
  const issuer = `http://127.0.0.1:${port}`
  const people = new Map<string, OidcPerson>()
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: oidcClient.clientId,
        client_secret: oidcClient.clientSecret,
        redirect_uris: [oidcRedirect],
      },
    ],
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
    pkce: { required: () => true },
    cookies: { keys: ['of the test'] },
    findAccount: async (_context, id) => ({
      accountId: id,
      claims: async () => ({ sub: id, ...people.get(id) }),
    }),
  })
  const answer = provider.callback()
  server.on('request', (request, response) => void answer(request, response))
  return {
    issuer,
    visit: async (authorizationUrl, person) => {
      people.set(person.email, person)
      return walk(authorizationUrl, person.email)
    },
    [Symbol.asyncDispose]: async () => {
      server.close()
      server.closeAllConnections()
    },
  }
}

/** A browser as far as is needed: it follows redirections, keeps cookies, and fills in the forms it is shown. */
async function walk(start: string, login: string): Promise<string> {
  const cookies = new Map<string, string>()
  let next: { url: string; form?: URLSearchParams } = { url: start }
  for (let step = 0; step < 15; step += 1) {
    const response = await fetch(next.url, {
      redirect: 'manual',
      headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
      ...(next.form !== undefined && { method: 'POST', body: next.form }),
    })
    for (const cookie of response.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(cookie) ?? []
      cookies.set(name, value)
    }
    const location = response.headers.get('location')
    if (location !== null) {
      const target = new URL(location, next.url)
      if (target.href.startsWith(oidcRedirect)) return target.search
      next = { url: target.href }
      continue
    }
    const page = await response.text()
    const action = /<form[^>]*action="([^"]+)"/.exec(page)?.[1]
    const prompt = /name="prompt" value="(\w+)"/.exec(page)?.[1]
    if (action === undefined || prompt === undefined) throw new Error(`the provider shows: ${page}`)
    const form = new URLSearchParams({ prompt, ...(prompt === 'login' && { login, password: 'any' }) })
    next = { url: new URL(action, next.url).href, form }
  }
  throw new Error('the provider sends the browser in circles')
}
