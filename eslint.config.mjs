import tseslint from 'typescript-eslint'

/**
 * Exactly four rules, all about promises, because they need types and Biome has none. Everything else is Biome's.
 *
 * - no-floating-promises: a promise nobody awaits acknowledges a message before its transaction has committed.
 * - no-misused-promises: an async function given to `on('data', ...)` or an `if (promise)` loses its error.
 * - await-thenable: an `await` of a plain value claims an order that is not there.
 * - return-await: a promise returned out of `try` or `using` settles after the catch, or after the thing was closed.
 */
export default tseslint.config(
  {
    ignores: [
      '**/node_modules/**',
      'tests/laws/fixture/**',
      '**/dist/**',
      '.reports/**',
      '**/*.mjs',
      '**/*.js',
      '**/*.cjs',
    ],
  },
  {
    files: ['**/*.ts'],
    plugins: { '@typescript-eslint': tseslint.plugin },
    languageOptions: {
      parser: tseslint.parser,
      parserOptions: { project: './tsconfig.json', tsconfigRootDir: import.meta.dirname },
    },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/await-thenable': 'error',
      '@typescript-eslint/return-await': ['error', 'error-handling-correctness-only'],
    },
  },
)
