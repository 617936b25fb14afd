import { readFileSync } from 'node:fs'

/**
 * Adds up vitest's JSON reports of the suites named on the command line. One line per suite, then the sum as the
 * last line: `N passed, N failed`. A test file that could not be loaded, and a suite that left no report, count as one
 * failure each. Exit code 1 if anything failed, or if nothing passed.
 */
let passed = 0
let failed = 0

for (const suite of process.argv.slice(2)) {
  const counts = countsOf(suite)
  passed += counts.passed
  failed += counts.failed
  const { files, skipped, note } = counts
  console.log(
    `${suite}: ${counts.passed} passed, ${counts.failed} failed, ${skipped} skipped in ${files} files${note}`,
  )
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 && passed > 0 ? 0 : 1

function countsOf(suite) {
  let report
  try {
    report = JSON.parse(readFileSync(new URL(`../.reports/${suite}.json`, import.meta.url), 'utf8'))
  } catch (error) {
    return { passed: 0, failed: 1, skipped: 0, files: 0, note: ` (no report: ${error.message})` }
  }
  const unloaded = report.testResults.filter(
    ({ status, assertionResults }) =>
      status === 'failed' && assertionResults.every((one) => one.status !== 'failed'),
  )
  const unexplained = !report.success && report.numFailedTests === 0 && unloaded.length === 0 ? 1 : 0
  return {
    passed: report.numPassedTests,
    failed: report.numFailedTests + unloaded.length + unexplained,
    skipped: report.numPendingTests + report.numTodoTests,
    files: report.testResults.length,
    note: unexplained ? ' (errors outside of tests: see above)' : '',
  }
}
