import { defineConfig } from 'vitest/config'

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
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
})
