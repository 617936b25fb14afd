#!/usr/bin/env node
// Runs on whatever Node there is (20 or newer) and hands over to the Node that came with npm ci, which runs TypeScript.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import module from 'node:module'
import { fileURLToPath } from 'node:url'

// What was compiled once is not compiled again: a later start takes a third less CPU time (2.2 s, 1.5 s), the phone host,
// which inherits the variable, less than half (0.8 s, 0.35 s). Not writable: no cache, and no error.
process.env.NODE_COMPILE_CACHE ??= fileURLToPath(
  new URL('../../node_modules/.cache/cloudphone', import.meta.url),
)
module.enableCompileCache?.(process.env.NODE_COMPILE_CACHE)

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
const runsTypeScript = major > 23 || (major === 23 && minor >= 6)

if (runsTypeScript) {
  await import('../src/main.ts')
} else {
  const node = fileURLToPath(new URL('../../node_modules/node/bin/node', import.meta.url))
  if (!existsSync(node)) {
    console.error(`cloudphone: Node 24 is missing at ${node}; run npm ci`)
    process.exit(1)
  }
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: 'inherit' })
  // A terminal sends Ctrl-C to both of us; a supervisor signals only this process.
  process.on('SIGINT', () => undefined)
  process.on('SIGTERM', () => child.kill('SIGTERM'))
  child.on('exit', (code, signal) => process.exit(signal === null ? (code ?? 1) : 128))
}
