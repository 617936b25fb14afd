import { once } from 'node:events'
import { createServer } from 'node:http'
import { FinishOidc, StartOidc } from '@cloudphone/contracts/api/identity-api'
import type { Tokens } from '@cloudphone/contracts/api/users-api'
import type { Client } from '@cloudphone/sdk/client'

/**
 * Signs in at an OpenID provider: tells the URL to open in a browser, and waits on a port of this machine until the
 * provider has sent the browser back (RFC 8252, section 7.3).
 */
export async function loginAtProvider(
  client: Client,
  provider: string,
  tell: (url: string) => void,
): Promise<Tokens> {
  const back = Promise.withResolvers<string>()
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://127.0.0.1')
    if (url.pathname !== '/callback') return void response.writeHead(404).end()
    response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' })
    response.end('Signed in: go back to the terminal.\n登录完成，请返回终端。\n')
    back.resolve(url.search)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  try {
    const address = server.address()
    const port = typeof address === 'object' ? address?.port : undefined
    const started = await client.call(StartOidc, {
      params: { provider },
      body: { redirectUri: `http://127.0.0.1:${port}/callback` },
    })
    tell(started.authorizationUrl)
    return await client.call(FinishOidc, { body: { flow: started.flow, callback: await back.promise } })
  } finally {
    server.close()
    server.closeAllConnections()
  }
}
