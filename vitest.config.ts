import { defineConfig } from 'vitest/config'

/** In CI the counts are also written down, for `.ci/run` to add up. */
const ci = process.env.CI === 'true'

/** The default suite: npm packages only, under three minutes on two cores. */
export default defineConfig({
  test: {
    include: [
      'packages/**/*.test.ts',
      'services/**/*.test.ts',
      'server/**/*.test.ts',
      'clients/**/*.test.ts',
      'tests/default/**/*.test.ts',
      'bench/**/*.test.ts',
    ],
    // Long drills run with `npm run test:all`.
    exclude: ['**/node_modules/**', '**/*.drill.test.ts'],
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
  },
})
