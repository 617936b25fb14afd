import { publicRoutes, routes } from '@cloudphone/contracts/routes'
import { expect, test } from 'vitest'
import { openApiOf } from './openapi.ts'

const document = openApiOf(publicRoutes, { version: '1.2.3' })
const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
)

test('every public route is there, and nothing internal', () => {
  const described = operations.map(({ path, method }) => `${method.toUpperCase()} ${path}`).sort()
  const declared = publicRoutes.map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, '{$1}')}`)
  expect(described).toEqual(declared.sort())
  expect(routes.length).toBeGreaterThan(publicRoutes.length)
  expect(JSON.stringify(document)).not.toContain('/internal/')
})

test('the document holds together: ids are unique, references lead somewhere, path parameters are declared', () => {
  expect(document.openapi).toBe('3.1.0')
  const ids = operations.map(({ operation }) => operation.operationId)
  expect(new Set(ids).size).toBe(ids.length)
  const references = [...JSON.stringify(document).matchAll(/"\$ref":"#\/([^"]+)"/g)].map(([, path]) => path!)
  expect(references.length).toBeGreaterThan(0)
  for (const reference of references) {
    const target = reference
      .split('/')
      .reduce<unknown>((at, key) => (at as Record<string, unknown>)?.[key], document)
    expect(target, reference).toBeTypeOf('object')
  }
  for (const { path, operation } of operations) {
    const wanted = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name)
    const parameters = operation.parameters as {
      name: string
      in: string
      required: boolean
      schema: object
    }[]
    const declared = parameters.filter((parameter) => parameter.in === 'path')
    expect(declared.map(({ name }) => name)).toEqual(wanted)
    expect(declared.every(({ required }) => required)).toBe(true)
    expect(Object.keys(operation.responses).some((status) => /^20[0-4]$/.test(status))).toBe(true)
    expect(operation.responses).toHaveProperty('429')
  }
})

test('no schema of what callers send or get is empty: everything could be said in JSON Schema', () => {
  const empty: string[] = []
  const visit = (value: unknown, path: string): void => {
    if (typeof value !== 'object' || value === null) return
    if (/\/(properties\/[^/]+|items|schema)$/.test(path) && Object.keys(value).length === 0) empty.push(path)
    for (const [key, member] of Object.entries(value)) visit(member, `${path}/${key}`)
  }
  visit(document.paths, '')
  expect(empty).toEqual([])
})

test('a protected route names both ways in, a public one none', () => {
  const login = document.paths['/api/auth/login']?.post
  const create = document.paths['/api/devices']?.post
  expect(login?.security).toEqual([])
  expect(login?.responses).not.toHaveProperty('401')
  expect(create?.security).toEqual([{ accessToken: [] }, { apiKey: [] }])
  expect(create?.description).toContain('devices:use')
  expect(create?.responses).toMatchObject({
    202: expect.anything(),
    default: { description: expect.stringContaining('quota_exceeded') },
  })
})

test('bodies are described as they are sent: defaults are not asked for, uploads are forms with a file', () => {
  const create = document.paths['/api/devices']?.post?.requestBody as {
    content: Record<string, { schema: { required: string[]; properties: object } }>
  }
  const { schema } = create.content['application/json']!
  expect(schema.required).toEqual(['name'])
  expect(schema.properties).toMatchObject({
    cpuCores: { type: 'integer', minimum: 1, maximum: 16, default: 2 },
  })
  const upload = document.paths['/api/apps']?.post?.requestBody as {
    content: Record<string, { schema: unknown }>
  }
  expect(upload.content['multipart/form-data']?.schema).toMatchObject({
    required: ['file'],
    properties: { file: { type: 'string', format: 'binary' } },
  })
})

test('every answer tells of its limits, and a refusal for now when to come again', () => {
  for (const { operation } of operations) {
    const responses = operation.responses as Record<string, { headers?: Record<string, unknown> }>
    for (const [status, { headers }] of Object.entries(responses)) {
      if (status === 'default') continue
      expect(headers).toHaveProperty('RateLimit-Remaining')
      expect('Retry-After' in (headers ?? {})).toBe(status === '429' || status === '503')
    }
    expect(responses).toHaveProperty('504')
  }
  expect(document.paths['/api/apps']?.post?.responses).toHaveProperty('413')
})
