import { expect, test } from 'vitest'
import { readServerSettings } from './settings.ts'

test('without any setting a platform runs in the folder one is in, for this machine alone', () => {
  expect(readServerSettings({}, '/somewhere')).toMatchObject({
    ...{ dataDir: '/somewhere/.cloudphone', host: '127.0.0.1', portBase: 30_000 },
    services: ['gateway', 'users', 'devices', 'apps', 'scheduler', 'billing', 'notifications'],
    ...{ database: { url: undefined, poolSize: 5 }, admin: { email: undefined, password: undefined } },
    // Neither spans nor the library that makes them.
    tracing: undefined,
  })
})

test('traces go where the standard variables say', () => {
  const env = {
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://localhost:4318',
    OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
    OTEL_TRACES_SAMPLER_ARG: '0.25',
  }
  expect(readServerSettings(env, '/').tracing).toEqual({
    ...{ endpoint: 'http://localhost:4318', serviceName: undefined },
    ...{ sampler: 'parentbased_traceidratio', ratio: 0.25 },
  })
})

test.each([
  ['CLOUDPHONE_HOST', 'nowhere'],
  ['CLOUDPHONE_PORT_BASE', '70000'],
  ['CLOUDPHONE_PORT_BASE', '0'],
  ['CLOUDPHONE_PORT_BASE', '80a'],
  ['CLOUDPHONE_SERVICES', 'users,teapots'],
  ['CLOUDPHONE_ADMIN_EMAIL', 'nobody'],
  ['CLOUDPHONE_ADMIN_PASSWORD', 'short'],
  ['CLOUDPHONE_SERVICE_SECRET', 'short'],
  ['CLOUDPHONE_LOG_LEVEL', 'loud'],
  ['CLOUDPHONE_LOG_FORMAT', 'xml'],
  ['DATABASE_POOL_SIZE', '1'],
  ['OTEL_EXPORTER_OTLP_ENDPOINT', 'localhost:4318'],
  ['OTEL_TRACES_SAMPLER', 'sometimes'],
  ['OTEL_TRACES_SAMPLER_ARG', '2'],
])('a wrong %s (%s) is one line that names it and does not repeat a secret', (name, value) => {
  const read = () => readServerSettings({ [name]: value }, '/')
  expect(read).toThrow(name)
  expect(read).toThrow(/^[^\n]+$/)
  if (/PASSWORD|SECRET/.test(name)) expect(read).not.toThrow(value)
})

test('a part of a platform needs a database where it meets the others', () => {
  const part = { CLOUDPHONE_SERVICES: 'devices,billing' }
  expect(() => readServerSettings(part, '/')).toThrow('needs DATABASE_URL')
  expect(readServerSettings({ ...part, DATABASE_URL: 'postgres://a:b@c/d' }, '/').services).toEqual([
    'devices',
    'billing',
  ])
})

test.each([
  ['~/phones', /^\/.+\/phones$/],
  ['/var/phones', /^\/var\/phones$/],
  ['phones', /^\/here\/phones$/],
])('the data directory %s is found', (given, found) => {
  expect(readServerSettings({ CLOUDPHONE_DATA_DIR: given }, '/here').dataDir).toMatch(found)
})
