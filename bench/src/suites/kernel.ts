import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Figure } from '../harness/figure.ts'
import { type Suite, type Task, UsageError } from '../harness/program.ts'
import type { Setting } from '../kernel/rounds.ts'
import { measureSagas } from '../kernel/sagas.ts'
import { openStage } from '../kernel/stage.ts'

/** The kernel beside what people would use instead, on one durable PostgreSQL, in interleaved rounds. */
export const kernel: Suite = {
  summary: 'sagas, outbox, bus and take-over, beside DBOS, graphile-worker and pg-boss',
  options: {
    rounds: { default: '5', help: 'rounds of each contestant, in turn' },
    only: { default: '', help: 'some of the measurements, such as sagas' },
    profile: { default: '', help: 'folder for a CPU profile of each contestant (they cost some speed)' },
  },
  switches: { quick: 'two short rounds: for a look, not for a figure' },
  run: async (task) => {
    if (process.platform !== 'linux') throw new UsageError('the suite reads /proc, so it needs Linux')
    const wanted = chosen(task)
    const disturbances: string[] = []
    await using stage = await openStage()
    const facts = { ...(await stage.facts()), peers: await peerVersions() }
    const rounds = task.isOn('quick') ? 2 : task.number('rounds')
    const setting: Setting = { stage, task, rounds, disturbances }
    const figures: Figure[] = []
    for (const name of wanted) figures.push(...(await measurements[name](setting, task)))
    return { figures, facts: { ...facts, ...disturbanceFacts(disturbances) } }
  },
}

const measurements = {
  sagas: (setting: Setting, task: Task) =>
    measureSagas(setting, {
      throughputMs: task.isOn('quick') ? 1_500 : 3_000,
      latencyMs: task.isOn('quick') ? 700 : 1_500,
      profileDir: profileDir(task),
    }),
}
type Measurement = keyof typeof measurements

function chosen(task: Task): readonly Measurement[] {
  const all = Object.keys(measurements) as Measurement[]
  const asked = task.option('only').split(',').filter(Boolean)
  const unknown = asked.find((name) => !Object.hasOwn(measurements, name))
  if (unknown !== undefined)
    throw new UsageError(`--only: there is no '${unknown}'; there are ${all.join(', ')}`)
  return asked.length === 0 ? all : all.filter((name) => asked.includes(name))
}

function profileDir(task: Task): string | undefined {
  const dir = task.option('profile')
  return dir === '' ? undefined : dir
}

async function peerVersions(): Promise<string> {
  const names = ['@dbos-inc/dbos-sdk', 'graphile-worker', 'pg-boss']
  const modules = fileURLToPath(new URL('../../../node_modules', import.meta.url))
  const versions = names.map(async (name) => {
    const { version }: { version: string } = JSON.parse(
      await readFile(join(modules, name, 'package.json'), 'utf8'),
    )
    return `${name} ${version}`
  })
  return (await Promise.all(versions)).join(', ')
}

function disturbanceFacts(disturbances: readonly string[]): Record<string, string> {
  if (disturbances.length === 0) return { disturbed: 'no round: nobody else used more than 5 % of a core' }
  return { disturbed: `${disturbances.length} rounds, so take them with care: ${disturbances.join('; ')}` }
}
