import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Operation, operationsOf } from '../src/fuzz.ts'
import { type FuzzTown, fuzz, fuzzSeed, fuzzTown } from '../src/fuzz-run.ts'
import { type PlatformHome, platformHome, type Run } from '../src/platform-process.ts'

/* Every route on its own, against the platform as a process: what it weighs and whether it lives is its own matter. */

let home: PlatformHome
let run: Run
let town: FuzzTown
let operations: readonly Operation[]

beforeAll(async () => {
  home = await platformHome()
  run = await home.start()
  town = await fuzzTown(await home.client())
  operations = await operationsOf(run.url)
})
afterAll(() => home?.close())

const seed = fuzzSeed()
const runsPerRoute = 100

/** The memory that a process holds, in MB. Linux, see proc_pid_status(5). */
async function memoryMb(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) / 1024
}

test(`no request to any route fails, hangs or shows our inside (FUZZ_SEED=${seed})`, async () => {
  const wrong: string[] = []
  for (const operation of operations) {
    try {
      const statuses = await fuzz(town, [operation], { seed, runs: runsPerRoute })
      // Two of nine are nobody; were it most of them, the routes would not have been tried.
      if ((statuses.get(401) ?? 0) > runsPerRoute / 2 && operation.secured) wrong.push(`${operation.id}: 401`)
    } catch (error) {
      wrong.push(`${operation.id}: ${error} ${error instanceof Error ? error.cause : ''}`)
    }
  }
  expect(wrong).toEqual([])
  expect(run.hasEnded()).toBe(false)
  expect(await memoryMb(run.pid)).toBeLessThan(1500)
}, 900_000)
