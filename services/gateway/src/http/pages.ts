import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyInstance } from 'fastify'
import type { OpenApiDocument } from '../domain/openapi.ts'

/** Everything is served from here, so nothing else is allowed; the viewer's icons are data URLs and styles of its own. */
const docsPolicy =
  "default-src 'self'; base-uri 'none'; object-src 'none'; frame-ancestors 'none'; form-action 'self'; " +
  "img-src 'self' data:; style-src 'self' 'unsafe-inline'; script-src 'self'"

/** The landing page, the API's description and its viewer. */
export async function servePages(app: FastifyInstance, document: OpenApiDocument): Promise<void> {
  const description = JSON.stringify(document)
  app.get('/', async (request, reply) => {
    if (!(request.headers.accept ?? '').includes('text/html')) {
      return reply.send({
        success: true,
        data: { name: 'Cloudphone', docs: '/api/docs', openapi: '/api/openapi.json' },
      })
    }
    return reply.type('text/html; charset=utf-8').send(landing)
  })
  app.get('/api/openapi.json', async (_request, reply) => reply.type('application/json').send(description))
  await app.register(swagger, { mode: 'static', specification: { document: JSON.parse(description) } })
  await app.register(swaggerUi, {
    routePrefix: '/api/docs',
    staticCSP: docsPolicy,
    theme: { title: 'Cloudphone API' },
    logo: { type: 'image/svg+xml', content: logo, href: '/', target: '_self' },
    uiConfig: { docExpansion: 'none', persistAuthorization: false, validatorUrl: null },
  })
}

const logo = Buffer.from(
  '<svg xmlns="http://www.w3.org/2000/svg" width="150" height="40"><text x="0" y="28" fill="#fff" ' +
    'font-family="sans-serif" font-size="22" font-weight="bold">Cloudphone</text></svg>',
)

const landing = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Cloudphone</title>
<h1>Cloudphone</h1>
<p>Android cloud phones: this is the API. <a href="/api/docs">Read and try it</a>,
or fetch its <a href="/api/openapi.json">OpenAPI description</a>.</p>
<p lang="zh">安卓云手机平台的 API 入口。<a href="/api/docs">接口文档（可在线调试）</a>，
<a href="/api/openapi.json">OpenAPI 描述文件</a>。</p>
</html>
`
