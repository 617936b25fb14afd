import { join } from 'node:path'
import { CLOCK_LAWS, clockTrespasses } from '../tests/laws/clock.ts'

/** `npm run check:clock`: prints each trespass against the laws about time, and fails if there is one. */
const trespasses = await clockTrespasses(join(import.meta.dirname, '..'))
for (const { law, path, line, excerpt } of trespasses) {
  console.error(`error ${law}: ${path}:${line}\n    ${excerpt}\n    ${CLOCK_LAWS[law]}`)
}
if (trespasses.length > 0) process.exitCode = 1
else console.log('✔ no decision reads the wall clock, no deadline stands on bare now()')
