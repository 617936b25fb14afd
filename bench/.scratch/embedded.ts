import { openContestant } from '../src/kernel/contenders/ours-embedded.ts'
import { openStage } from '../src/kernel/stage.ts'

await using stage = await openStage()
const coreUrl = await stage.database('core')
const consumerUrl = await stage.database('consumer')
const one = openContestant({ coreUrl, consumerUrl, poolSize: 20 })
await one.setUp()
const n = Number(process.argv[2] ?? 3000)
for (let r = 0; r < 5; r++) {
  const order = { events: n, taking: 'batch' } as const
  await one.clear(order)
  await stage.checkpoint()
  await one.open(order)
  const c0 = process.cpuUsage()
  const l = performance.eventLoopUtilization()
  const o = await one.work(order)
  const c = process.cpuUsage(c0)
  console.log(
    r,
    Math.round(o.elapsedMs),
    'ms',
    Math.round((n * 1000) / o.elapsedMs),
    '/s node cpu',
    Math.round((c.user + c.system) / 1000),
    'elu',
    performance.eventLoopUtilization(l).utilization.toFixed(2),
  )
  await one.close()
  await one.audit(o)
}
