import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { expect, test } from 'vitest'
import { allProcesses, cpuMs, descendantsOf, familyCpuMs } from './processes.ts'

test('a child that works is found below its parent, and its work is counted, also after it has ended', async () => {
  const work = 'const end = performance.now() + 150; while (performance.now() < end); process.stdin.resume()'
  const before = await familyCpuMs(process.pid)
  const child = spawn(process.execPath, ['-e', `${work}; process.stdout.write('.')`])
  await once(child.stdout, 'data')
  const all = await allProcesses()
  expect(descendantsOf(process.pid, all).map(({ pid }) => pid)).toContain(child.pid)
  expect(await cpuMs(child.pid ?? 0)).toBeGreaterThan(50)
  child.stdin.end()
  await once(child, 'exit')
  expect((await allProcesses()).has(child.pid ?? 0)).toBe(false)
  expect((await familyCpuMs(process.pid)) - before).toBeGreaterThan(50)
})
