import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

/**
 * For the copy in which guards are taken away. No global set-up: the drill has one PostgreSQL for all runs, whose door the
 * workers inherit. Retried is nothing: a test that goes red once has noticed.
 */
export default defineConfig({
  root: fileURLToPath(new URL('../../..', import.meta.url)),
  test: {
    include: ['**/*.test.ts'],
    exclude: ['**/node_modules/**'],
    passWithNoTests: false,
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 120_000,
    retry: 0,
  },
})
