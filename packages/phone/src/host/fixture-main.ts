/* The phone host's process with the tests' Android, for the tests that kill it. */
import { openFixtureAndroid } from './fixture-android.ts'
import { hostMain } from './host-main.ts'

const [dir, socketPath] = process.argv.slice(2)
process.exitCode = await hostMain({ dir, socketPath, openAndroid: openFixtureAndroid })
