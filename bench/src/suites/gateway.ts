import { randomBytes } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { Login } from '@cloudphone/contracts/api/users-api'
import { systemClock } from '@cloudphone/observe/clock'
import { silentLog } from '@cloudphone/observe/log'
import { staticRegistry } from '@cloudphone/registry/registry'
import { ClosingStack } from '@cloudphone/runtime/closing'
import { openServiceTokens } from '@cloudphone/runtime/tokens'
import { openNeighbours } from '@cloudphone/testing/neighbours'
import { callerOf } from '@cloudphone/testing/token-mint'
import { freePorts } from '../free-ports.ts'
import type { DoorSettings } from '../gateway/door.ts'
import type { DoorName } from '../gateway/door-list.ts'
import { startDoor } from '../gateway/door-process.ts'
import { startNginx } from '../gateway/nginx.ts'
import { measureUpload, openSink } from '../gateway/upload.ts'
import { runLoad } from '../gateway/wrk.ts'
import type { Figure } from '../harness/figure.ts'
import { familyCpuMs } from '../harness/processes.ts'
import type { Suite, Task } from '../harness/program.ts'
import { closedLoop, median, percentile } from '../harness/samples.ts'
import { Disturbances, watchOthers } from '../kernel/others.ts'
import { spread } from '../kernel/rounds.ts'
import { PlatformProcess } from '../platform-process.ts'

const connections = 64
const path = '/api/devices'
const answer = `{"success":true,"data":[{"id":"0198c5a8-0000-7000-8000-000000000001","name":"bench","status":"RUNNING"}],"page":{"nextCursor":null}}`

/** The gateway beside what people would put there instead, all in front of one upstream. */
export const gateway: Suite = {
  summary: 'requests through the gateway beside other proxies, a 2 GiB upload, sign-ins',
  options: {
    rounds: { default: '5', help: 'how often each is measured, in turn' },
    seconds: { default: '5', help: 'how long a round is' },
    profile: { default: '', help: 'a folder for a CPU profile of each process' },
  },
  switches: { 'only-requests': 'neither the upload nor sign-ins' },
  run: async (task) => {
    const disturbances = new Disturbances()
    const figures = await measureDoors(task, disturbances)
    if (!task.isOn('only-requests')) figures.push(...(await measureSignIns(task)))
    return { figures, facts: { disturbed: String(disturbances) } }
  },
}

interface Door {
  readonly name: string
  readonly url: string
  readonly pid: number
  /** What we must reach of it, in requests a second. */
  readonly wanted?: number
}

interface Round {
  readonly perSecond: number
  readonly p99Ms: number
  readonly cpuUs: number
}

async function measureDoors(task: Task, disturbances: Disturbances): Promise<Figure[]> {
  await using stage = await openStage()
  const { settings, token } = stage
  const dir = task.option('profile')
  if (dir !== '') await mkdir(dir, { recursive: true })
  const start = (name: DoorName) => startDoor(name, settings, dir === '' ? undefined : dir)
  await using ours = await start('ours')
  await using fastify = await start('fastify-http-proxy')
  await using express = await start('express')
  await using floor = await start('floor')
  await using nginx = await startNginx(stage.nginxPort, [
    `upstream small { server ${new URL(settings.upstream).host}; keepalive 128; keepalive_requests 100000000; }`,
    `server { listen 127.0.0.1:${stage.nginxPort}; location / { proxy_pass http://small;`,
    'proxy_http_version 1.1; proxy_set_header Connection ""; } }',
  ])
  const doors: readonly Door[] = [
    { name: 'ours', url: ours.url, pid: ours.pid },
    { name: '@fastify/http-proxy', url: fastify.url, pid: fastify.pid, wanted: 0.8 },
    { name: 'express + http-proxy-middleware', url: express.url, pid: express.pid, wanted: 1.7 },
    { name: 'nginx, one worker', url: nginx.url, pid: nginx.pid, wanted: 0.33 },
    { name: 'node:http and undici alone', url: floor.url, pid: floor.pid },
  ]
  const rounds = await playInTurn(doors, { token, task, disturbances })
  const figures = compared(doors, rounds)
  if (!task.isOn('only-requests')) {
    task.progress('an upload of 2 GiB ...')
    // A smaller one first: what grows once is not what an upload costs.
    await measureUpload(ours, { token, mebibytes: 256 })
    const { beforeMiB, peakMiB, seconds } = await measureUpload(ours, { token, mebibytes: 2_047 })
    figures.push(
      {
        name: 'memory that an upload of 2 GiB adds to the gateway (MiB)',
        ours: Math.max(0, peakMiB - beforeMiB),
        wanted: { is: '<', than: 64 },
      },
      { name: 'the same upload, MiB/s', ours: 2_047 / seconds },
    )
  }
  return figures
}

async function playInTurn(
  doors: readonly Door[],
  { token, task, disturbances }: { token: string; task: Task; disturbances: Disturbances },
): Promise<Round[][]> {
  const load = (door: Door, seconds: number) =>
    runLoad({ url: `${door.url}${path}`, token, connections, seconds })
  task.progress('warming up ...')
  for (const door of doors) await load(door, 3)
  const played: Round[][] = doors.map(() => [])
  const count = task.number('rounds')
  for (let round = 1; round <= count; round += 1) {
    task.progress(`round ${round} of ${count} ...`)
    for (const [at, door] of doors.entries()) {
      const watch = await watchOthers()
      const before = await familyCpuMs(door.pid)
      const { perSecond, p99Ms, requests } = await load(door, task.number('seconds'))
      const cpuUs = (((await familyCpuMs(door.pid)) - before) * 1000) / requests
      disturbances.add({ title: 'requests', entry: `${door.name} ${round}`, others: await watch.end() })
      task.progress(`  ${door.name}: ${Math.round(perSecond)}/s, ${cpuUs.toFixed(1)} us of CPU each`)
      played[at]?.push({ perSecond, p99Ms, cpuUs })
    }
  }
  return played
}

function compared(doors: readonly Door[], rounds: readonly Round[][]): Figure[] {
  const [own = []] = rounds
  const facts = [
    { what: 'requests/s', of: (round: Round) => round.perSecond },
    { what: 'p99 with 64 in flight (ms)', of: (round: Round) => round.p99Ms },
    { what: 'CPU of the door (us a request)', of: (round: Round) => round.cpuUs },
  ]
  return facts.flatMap(({ what, of }, at) =>
    doors.slice(1).map((door, index): Figure => {
      const [ours, peer] = [spread(own.map(of)), spread((rounds[index + 1] ?? []).map(of))]
      return {
        name: `${what}, beside ${door.name}`,
        ...{ ours: ours.middle, oursRange: ours.range, peer: peer.middle, peerRange: peer.range },
        ...(at === 0 &&
          door.wanted !== undefined && { wanted: { is: '>=', than: door.wanted, of: 'ratio' } }),
      }
    }),
  )
}

/** What stands behind and beside the doors: the upstream, the sink of uploads, a users service, a collector of traces. */
async function openStage() {
  const closing = new ClosingStack(silentLog())
  const [upstreamPort = 0, nginxPort = 0] = await freePorts({ from: 14_100, to: 14_199 })
  const upstream = await startNginx(upstreamPort, [
    'default_type application/json;',
    `server { listen 127.0.0.1:${upstreamPort}; location / { return 200 '${answer}'; } }`,
  ])
  closing.defer('upstream', async () => upstream[Symbol.asyncDispose]())
  const serviceSecret = randomBytes(32).toString('base64url')
  const registry = staticRegistry()
  const serviceTokens = openServiceTokens({ secret: serviceSecret, now: systemClock.now })
  const { tokenFor } = await openNeighbours({ registry, serviceTokens, closing })
  const [users = ''] = await registry.lookup('users')
  const sink = closing.add('sink', await openSink())
  const collector = closing.add('collector', await openSink())
  const settings: DoorSettings = {
    ...{ upstream: upstream.url, sink: sink.url, collector: collector.url, users, serviceSecret },
  }
  return {
    ...{ settings, nginxPort, token: tokenFor(callerOf()) },
    [Symbol.asyncDispose]: () => closing.close(),
  }
}

async function measureSignIns({ progress }: Task): Promise<Figure[]> {
  progress('sign-ins ...')
  await using platform = await PlatformProcess.prepare({
    GATEWAY_LIMIT_PER_SECOND: '100000',
    GATEWAY_LIMIT_PER_10_SECONDS: '1000000',
    GATEWAY_LIMIT_PER_MINUTE: '1000000',
  })
  await platform.start()
  const { count, elapsedMs, latenciesMs } = await closedLoop({
    concurrency: 8,
    durationMs: 5_000,
    once: () => platform.client.call(Login, { body: platform.credentials }),
  })
  return [
    { name: 'sign-ins/s through gateway and users, 8 at once', ours: (count * 1000) / elapsedMs },
    { name: 'a sign-in, p50 (ms)', ours: median(latenciesMs) },
    { name: 'a sign-in, p99 (ms)', ours: percentile(latenciesMs, 0.99) },
  ]
}
