import { randomInt } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Suite, Task } from '@cloudphone/bench/harness/program'
import { Underway } from '@cloudphone/bench/harness/samples'
import { PlatformProcess } from '@cloudphone/bench/platform-process'
import { CreateDevice, DeleteDevice, ListDevices } from '@cloudphone/contracts/api/devices-api'
import { Doctor, GetSaga, type SagaView } from '@cloudphone/contracts/api/platform-api'
import { GetQuota } from '@cloudphone/contracts/api/quota-api'
import { Me } from '@cloudphone/contracts/api/users-api'
import { type Client, CloudphoneError } from '@cloudphone/sdk/client'
import { seededRandom } from './random.ts'

const phonesPerRound = 4
const bootMs = 400
/** A little longer than the creation of all phones of a round takes: some kills come too late, most do not. */
const killWithinMs = 1500
/** In so many rounds the recovery is killed too, before it can have ended. */
const secondKillShare = 0.3
const secondKillWithinMs = 400
const healthyWithinMs = 60_000

const settings = {
  DEVICES_SIM_BOOT_MS: String(bootMs),
  GATEWAY_LIMIT_PER_SECOND: '0',
  GATEWAY_LIMIT_PER_10_SECONDS: '0',
  GATEWAY_LIMIT_PER_MINUTE: '0',
}

interface Round {
  /** Phones that were promised by a 202 and did not come into being, or came twice. */
  lost: number
  /** What the doctor names, and what is left after everything was deleted. */
  leaked: number
  /** From the last restart until every promise was kept and the doctor had nothing to say. */
  recoveryMs: number
  /** From the ready line until every repeated request had its answer. */
  answerMs: number
  /** Creations that the kill interrupted. */
  interrupted: number
}

/**
 * Phones are asked for, and the whole control plane is killed by SIGKILL at a moment that the seed decides: before the
 * answer, between two steps, in the boot, or after the end. Then it starts again, and nobody helps. The callers send
 * their requests again with the same Idempotency-Key, as callers do that were left without an answer.
 */
export const creation: Suite = {
  summary: 'kill -9 of the control plane at random moments of device creation',
  options: {
    rounds: { default: '10', help: 'how often it is killed' },
    seed: { default: '', help: 'the moments of an earlier run, as it printed them (default: new ones)' },
  },
  run: async (task) => {
    const seed = task.option('seed') === '' ? randomInt(2 ** 31) : task.number('seed')
    task.progress(`seed ${seed}`)
    const random = seededRandom(seed)
    await using platform = await PlatformProcess.prepare(settings)
    await platform.start()
    const rounds: Round[] = []
    for (let number = 1; number <= task.number('rounds'); number += 1)
      rounds.push(await playRound(platform, planOf(number, random), task))
    const sum = (of: (round: Round) => number) => rounds.reduce((total, round) => total + of(round), 0)
    return {
      facts: { PostgreSQL: await platform.postgresFacts(), seed: String(seed) },
      figures: [
        { name: 'rounds', ours: rounds.length, wanted: { is: '>=', than: 1 } },
        {
          name: 'creations that a kill interrupted',
          ours: sum((one) => one.interrupted),
          wanted: { is: '>=', than: 1 },
        },
        { name: 'phones lost or doubled', ours: sum((one) => one.lost), wanted: { is: '<=', than: 0 } },
        { name: 'leaks', ours: sum((one) => one.leaked), wanted: { is: '<=', than: 0 } },
        {
          name: 'slowest answer to a repeated request, from ready on (ms)',
          ours: Math.max(...rounds.map((one) => one.answerMs)),
        },
        {
          name: 'slowest recovery, restart included (ms)',
          ours: Math.max(...rounds.map((one) => one.recoveryMs)),
          wanted: { is: '<', than: 15_000 },
        },
      ],
    }
  },
}

interface Plan {
  readonly number: number
  readonly killAfterMs: number
  /** After the first restart's ready line; undefined: no second kill. */
  readonly killAgainAfterMs: number | undefined
}

function planOf(number: number, random: () => number): Plan {
  // Drawn in any case, so that a round's numbers do not depend on what came of another draw.
  const [killAfterMs, share, again] = [random() * killWithinMs, random(), random() * secondKillWithinMs]
  return { number, killAfterMs, killAgainAfterMs: share < secondKillShare ? again : undefined }
}

async function playRound(
  platform: PlatformProcess,
  { number, killAfterMs, killAgainAfterMs }: Plan,
  { progress }: Task,
): Promise<Round> {
  const { client } = platform
  const names = Array.from({ length: phonesPerRound }, (_, index) => `round-${number}-${index}`)
  // Signed in before anything is timed.
  await client.call(Me)
  const asked = new Underway<string | undefined>()
  for (const name of names) asked.add(ask(client, name))
  await sleep(killAfterMs)
  const killedAtMs = Date.now()
  await platform.kill()
  const promised = await asked.all()
  if (killAgainAfterMs !== undefined) {
    await platform.start()
    await sleep(killAgainAfterMs)
    await platform.kill()
  }
  const startedMs = performance.now()
  await platform.start()
  const readyMs = performance.now()
  const repeated = await Promise.all(names.map((name) => insist(client, name)))
  const answerMs = performance.now() - readyMs
  const ends = await Promise.all(repeated.map((sagaId) => endOf(client, sagaId)))
  const complaints = await untilHealthy(client)
  const recoveryMs = performance.now() - startedMs
  const interrupted = ends.filter((saga) => wasUnderWay(saga, killedAtMs)).length
  const lost = await countLost(client, { names, promised, repeated, ends })
  const left = await deleteAll(client)
  for (const line of [...complaints, ...left]) progress(`  ${line}`)
  const leaked = complaints.length + left.length
  progress(
    `round ${number}: killed after ${Math.round(killAfterMs)} ms${killAgainAfterMs === undefined ? '' : ' and again'}, ${interrupted} interrupted, back after ${Math.round(recoveryMs)} ms, ${lost} lost, ${leaked} leaked`,
  )
  return { lost, leaked, recoveryMs, answerMs, interrupted }
}

/** The saga's id, or undefined when the platform died before it answered. */
async function ask(client: Client, name: string): Promise<string | undefined> {
  try {
    return await insist(client, name)
  } catch (error) {
    // Status 0: cut off; 502 to 504: the gateway still lived, what is behind it did not.
    if (error instanceof CloudphoneError && (error.status === 0 || error.status >= 502)) return undefined
    if (error instanceof TypeError) return undefined
    throw error
  }
}

/** A request whose first try was cut off in the middle is refused for a while: the platform cannot know that it is dead. */
async function insist(client: Client, name: string): Promise<string> {
  for (;;) {
    try {
      const { sagaId } = await client.call(CreateDevice, { body: { name }, idempotencyKey: name })
      return sagaId
    } catch (error) {
      if (!(error instanceof CloudphoneError && error.code === 'request_in_progress')) throw error
      await sleep(250)
    }
  }
}

async function endOf(client: Client, sagaId: string): Promise<SagaView> {
  for (;;) {
    const saga = await client.call(GetSaga, { params: { sagaId }, query: { wait: 60 } })
    if (saga.endedAt !== null) return saga
  }
}

/** The server's clock and ours are one: it runs on this machine. */
function wasUnderWay({ createdAt, endedAt }: SagaView, atMs: number): boolean {
  return Date.parse(createdAt) < atMs && Date.parse(endedAt ?? '') > atMs
}

/** What the doctor still complains of when its time is over; empty as soon as it has nothing to say. */
async function untilHealthy(client: Client): Promise<string[]> {
  const untilMs = performance.now() + healthyWithinMs
  for (;;) {
    const { healthy, reports } = await client.call(Doctor)
    if (healthy) return []
    if (performance.now() > untilMs)
      return reports
        .filter((one) => !one.holds)
        .flatMap((one) => [
          `${one.invariant} ${one.name}: ${one.figure}`,
          ...one.culprits.map((culprit) => `  ${culprit.id} ${culprit.detail}`),
        ])
    await sleep(100)
  }
}

async function countLost(
  client: Client,
  found: {
    names: readonly string[]
    promised: readonly (string | undefined)[]
    repeated: readonly string[]
    ends: readonly SagaView[]
  },
): Promise<number> {
  const phones = await Array.fromAsync(client.each(ListDevices))
  return found.names.filter((name, index) => {
    const mine = phones.filter((phone) => phone.name === name)
    const isSame = found.promised[index] === undefined || found.promised[index] === found.repeated[index]
    return (
      !isSame ||
      found.ends[index]?.status !== 'COMPLETED' ||
      mine.length !== 1 ||
      mine[0]?.status !== 'RUNNING'
    )
  }).length
}

/** Deletes every phone and answers what is there nevertheless. */
async function deleteAll(client: Client): Promise<string[]> {
  for await (const { id } of client.each(ListDevices)) {
    const { sagaId } = await client.call(DeleteDevice, { params: { deviceId: id } })
    await endOf(client, sagaId)
  }
  const complaints = await untilHealthy(client)
  const phones = await Array.fromAsync(client.each(ListDevices))
  const { id: userId } = await client.call(Me)
  const { used } = await client.call(GetQuota, { params: { userId } })
  return [
    ...complaints,
    ...phones.map((phone) => `phone ${phone.id} is ${phone.status} after its deletion`),
    ...(used.devices === 0 ? [] : [`quota of ${used.devices} phones is still held`]),
  ]
}
