import { defineConfig } from 'vitest/config'

const ci = process.env.CI === 'true'

/**
 * What `npm run test:all` adds to `npm test`: suites against real servers and real tools (adb, and as they come
 * brokers, Docker, the chaos smoke). One file at a time: they start servers and measure them, on two cores.
 */
export default defineConfig({
  test: {
    include: ['tests/all/**/*.test.ts', 'packages/**/*.drill.test.ts', 'services/**/*.drill.test.ts'],
    globalSetup: ['packages/testing/src/global-setup.ts'],
    passWithNoTests: false,
    pool: 'forks',
    fileParallelism: false,
    testTimeout: 120_000,
    hookTimeout: 180_000,
    // On a shared CI machine a test may be starved of its two cores once; locally nothing is forgiven. The report names retries.
    retry: ci ? 1 : 0,
    reporters: ci ? ['default', 'json'] : ['default'],
    outputFile: { json: '.reports/all.json' },
  },
})
