import { defineConfig } from 'vitest/config'

/** In CI the counts are also written down, for `.ci/run` to add up. */
const ci = process.env.CI === 'true'

/** Schedules every await by itself, and must not meet what another file has hung into the runtime. */
const alone = ['packages/saga/src/simulation/*.test.ts']

/** The default suite: npm packages only, under three minutes on two cores. */
export default defineConfig({
  test: {
    globalSetup: ['packages/testing/src/global-setup.ts'],
    passWithNoTests: false,
    pool: 'forks',
    maxWorkers: 3,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // On a shared CI machine a test may be starved of its two cores once; locally nothing is forgiven. The report names retries.
    retry: ci ? 1 : 0,
    reporters: ci ? ['default', 'json'] : ['default'],
    outputFile: { json: '.reports/default.json' },
    projects: [
      {
        extends: true,
        test: {
          name: 'whole',
          include: ['tests/default/**/*.test.ts', ...alone],
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: 'parts',
          include: ['{packages,services,server,clients,bench}/**/*.test.ts'],
          // Long drills run with `npm run test:all`.
          exclude: ['**/node_modules/**', '**/*.drill.test.ts', ...alone],
          // One process plays many files: starting one and loading the libraries anew took as long as the tests.
          isolate: false,
          sequence: { groupOrder: 0 },
        },
      },
    ],
  },
})
