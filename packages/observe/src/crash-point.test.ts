import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { type CrashAct, crashPoints } from './crash-point.ts'

test('nothing is armed in production', async () => {
  await expect(crashPoints(undefined).reach('saga.after_claim')).resolves.toBeUndefined()
  await expect(crashPoints('').reach('saga.after_claim')).resolves.toBeUndefined()
})

test('a place throws at the visit it was told, and at no other', async () => {
  const crash = crashPoints('a.b@2=throw,c=throw')
  await crash.reach('a.b')
  await expect(crash.reach('a.b')).rejects.toThrow('crash point a.b')
  await crash.reach('a.b')
  await crash.reach('elsewhere')
})

test('a place hangs for as long as it was told', async () => {
  // Real time: a hang is of the process, and has no clock to be injected.
  const startedMs = performance.now()
  await crashPoints('a=hang=30').reach('a')
  expect(performance.now() - startedMs).toBeGreaterThanOrEqual(29)
})

test('a watcher decides each visit from the named one on', async () => {
  const asked: string[] = []
  const answers: CrashAct[] = ['go', 'throw', 'go']
  const crash = crashPoints('a@2=signal', async (name) => {
    asked.push(name)
    return answers[asked.length - 1] ?? 'go'
  })
  await crash.reach('a')
  await crash.reach('a')
  await expect(crash.reach('a')).rejects.toThrow('crash point a')
  await crash.reach('a')
  expect(asked).toEqual(['a', 'a', 'a'])
})

test.each(['a', 'a=explode', 'a=hang=', 'a=signal', 'a@x=kill'])('%s is refused', (setting) => {
  expect(() => crashPoints(setting)).toThrow('CLOUDPHONE_CRASH_POINTS')
})

function reaching(fault: string): ChildProcess {
  const script = `import { crashPoints } from ${JSON.stringify(new URL('./crash-point.ts', import.meta.url).href)}
    await crashPoints('a=${fault}').reach('a')
    process.stdout.write('passed')`
  return spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
}

test('killed is killed: by a signal, with nothing after it', async () => {
  const [, signal] = await once(reaching('kill'), 'exit')
  expect(signal).toBe('SIGKILL')
})

test.runIf(process.platform === 'linux')('stopped stands still until it is told to go on', async () => {
  const child = reaching('stop')
  while (!/\) T /.test(await readFile(`/proc/${child.pid}/stat`, 'utf8'))) await new Promise(setImmediate)
  const passed = once(child.stdout as NodeJS.ReadableStream, 'data')
  child.kill('SIGCONT')
  expect(String((await passed)[0])).toBe('passed')
  await once(child, 'exit')
})
