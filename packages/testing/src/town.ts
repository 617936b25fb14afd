/* Terminology:
 * - town: a whole platform (database, bus, blobs, registry) in which a test starts the services that it is about
 * - neighbour: a service that a town does not run, answered for by bindings of the test over real HTTP
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openDirectoryStore } from '@cloudphone/blobs/directory-store'
import { openEmbeddedBus } from '@cloudphone/bus/embedded/embedded-bus'
import { openMemoryCache } from '@cloudphone/cache/memory-cache'
import type { Caller } from '@cloudphone/contracts/access'
import {
  type EventDefinition,
  type EventEnvelope,
  type PayloadOf,
  schemaName,
} from '@cloudphone/contracts/event'
import { systemIds, type UserId } from '@cloudphone/contracts/id'
import { type CallInput, pathOf, readAnswer } from '@cloudphone/contracts/request'
import type { ResultOf, Route } from '@cloudphone/contracts/route'
import type { ServiceName } from '@cloudphone/contracts/services'
import { type Database, openDatabase } from '@cloudphone/db/database'
import type { ServiceDatabase } from '@cloudphone/db/provision'
import { systemClock } from '@cloudphone/observe/clock'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { type Logger, openLog, silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { staticRegistry } from '@cloudphone/registry/registry'
import { ClosingStack } from '@cloudphone/runtime/closing'
import { type RunningService, startService } from '@cloudphone/runtime/host'
import type { Binding } from '@cloudphone/runtime/http-server'
import type { Platform } from '@cloudphone/runtime/platform'
import type { AnyService } from '@cloudphone/runtime/service'
import { openServiceClient, type ServiceClient } from '@cloudphone/runtime/service-client'
import { openServiceTokens, type ServiceTokens } from '@cloudphone/runtime/tokens'
import { type Answer, ask, goodAnswer, type Question } from './ask.ts'
import { openNeighbours } from './neighbours.ts'
import { openTownDatabase, type TownDatabase } from './town-database.ts'

/** A call by contract as somebody, at one instance or at any. */
export interface CallAs<R extends Route> extends CallInput<R> {
  readonly as: Caller
  readonly at?: RunningService
  readonly key?: string
}

/** A platform for the services under test, over real PostgreSQL and real HTTP. */
export interface Town extends AsyncDisposable {
  readonly platform: Platform
  readonly serviceTokens: ServiceTokens
  readonly blobFolder: string
  /** What a test opens itself; closed when the services are, before the platform. */
  readonly closing: ClosingStack
  /** Starts one more instance of a service. */
  start(service: AnyService): Promise<RunningService>
  /**
   * Answers for a service by contract, beside those who already do. Until the town has another users service, one is
   * there that only publishes the key of `tokenFor`; those that a test adds publish it too.
   */
  neighbour(service: ServiceName, bindings: readonly Binding[]): Promise<void>
  /** An access token that services accept while the town does not run the real users service. */
  tokenFor(caller: Caller, lifeSeconds?: number): string
  /** Ends all tokens that `tokenFor` has made for a user. */
  revoke(userId: UserId): void
  ask(at: RunningService, as: Caller, question: Omit<Question, 'token'>): Promise<Answer>
  /** @throws ProblemError as the service answered it. */
  call<R extends Route>(route: R, input: CallAs<R>): Promise<ResultOf<R>>
  /** Calls as a service. */
  clientOf(service: ServiceName): ServiceClient
  /** Looks into a service's schema, as its role. */
  databaseOf<Schema>(service: ServiceName): Database<Schema>
  /** Puts an event on the bus; resolves when it is durable. `version` is that of its aggregate. */
  publish<D extends EventDefinition>(
    definition: D,
    fact: { aggregateId: string; version?: number; payload: PayloadOf<D> },
  ): Promise<void>
  /** Resolves when no saga, outbox or queue of the started services has anything to do now, nor makes the others work. */
  drain(): Promise<void>
  /** Moves the time of the databases (`app_now()`); that of the processes goes on as it is. */
  moveTime(ms: number): Promise<void>
  close(): Promise<void>
}

export interface TownOptions {
  /** Settings of the services. */
  readonly env?: Readonly<Record<string, string>>
  /** As `CLOUDPHONE_CRASH_POINTS`. */
  readonly crashPoints?: string
}

/** Opens a town without services, in about 100 ms. With `CLOUDPHONE_TEST_LOG` set, all that happens in it is logged. */
export async function openTown(options: TownOptions = {}): Promise<Town> {
  const silent = process.env.CLOUDPHONE_TEST_LOG === undefined
  const log = silent ? silentLog() : openLog({ level: 'info', format: 'json' })
  const closing = new ClosingStack(log)
  try {
    return await settle(options, log, closing)
  } catch (error) {
    await closing.close()
    throw error
  }
}

async function settle(options: TownOptions, log: Logger, closing: ClosingStack): Promise<Town> {
  const blobFolder = await mkdtemp(join(tmpdir(), 'cloudphone-town-'))
  closing.defer('folder', () => rm(blobFolder, { recursive: true, force: true }))
  closing.defer('mails', () => rm(`${blobFolder}-mail`, { recursive: true, force: true }))
  const database = await openTownDatabase()
  closing.defer('database', () => database.drop())
  const platform = await openPlatform(options, { log, closing, blobFolder, targets: database.targets })
  const { bus, registry } = platform
  const serviceTokens = openServiceTokens({ secret: platform.serviceSecret, now: systemClock.now })
  const neighbours = await openNeighbours({ registry, serviceTokens, closing })
  const residents = openResidents(platform)
  const { neighbour, tokenFor, revoke } = neighbours
  let closed: Promise<void> | undefined
  const close = () => {
    closed ??= residents.close().finally(() => closing.close())
    return closed
  }
  return {
    ...{ platform, serviceTokens, blobFolder, closing, neighbour, tokenFor, revoke },
    start: async (service) => {
      if (service.name === 'users') await neighbours.leaveAccounts()
      return await residents.start(service)
    },
    ask: (at, as, question) => ask(at.address, { ...question, token: tokenFor(as) }),
    call: async (route, { as, at, key, ...input }) => {
      const address = at?.address ?? (await registry.lookup(route.service))[0]
      if (address === undefined) throw new Error(`the town has no ${route.service} service`)
      const { method } = route
      const question = { method, path: pathOf(route, input), body: input.body, token: tokenFor(as), key }
      return readAnswer(route, goodAnswer(await ask(address, question)).body) as ResultOf<typeof route>
    },
    clientOf: (self) => closing.add('client', openServiceClient({ self, registry, serviceTokens })),
    databaseOf: (service) => {
      const target = { ...targetOf(database.targets, service), applicationName: 'test', log }
      return closing.add('eyes', openDatabase({ ...target, poolSize: 4 }))
    },
    publish: async (definition, fact) => {
      const [outcome] = await bus.publish([envelopeOf(definition, fact)])
      if (outcome?.outcome !== 'accepted') throw new Error(`${definition.name}: ${JSON.stringify(outcome)}`)
    },
    drain: () => drain(residents, database, bus),
    moveTime: (ms) => database.moveTime(ms),
    ...{ close, [Symbol.asyncDispose]: close },
  }
}

async function openPlatform(
  { env = {}, crashPoints: armed }: TownOptions,
  town: { log: Logger; closing: ClosingStack; blobFolder: string; targets: TownDatabase['targets'] },
): Promise<Platform> {
  const { log, closing, blobFolder, targets } = town
  const crash = crashPoints(armed)
  const metrics = openMetrics('town')
  const bus = closing.add('bus', openEmbeddedBus({ ...targetOf(targets, 'bus'), log, metrics, crash }))
  await bus.declare()
  return {
    ...{ env: { MAIL_FOLDER: `${blobFolder}-mail`, ...env }, log, bus, crash, metrics, databases: targets },
    strictAudit: true,
    ...{ cache: closing.add('cache', openMemoryCache(systemClock)) },
    ...{ registry: staticRegistry(), serviceSecret: 'a secret that only the services of a test share' },
    ...{ blobs: await openDirectoryStore(blobFolder), poolSize: 8, host: '127.0.0.1', portBase: 0 },
  }
}

function targetOf(targets: TownDatabase['targets'], schema: string): ServiceDatabase {
  const target = targets[schema]
  if (target === undefined) throw new Error(`the town has no schema ${schema}`)
  return target
}

/** The services that run in the town. */
function openResidents(platform: Platform) {
  const running = new Set<RunningService>()
  const names = new Set<ServiceName>()
  const taken = new Set<string>()
  /** The lowest that is free, so that who comes after another has its number. */
  const numberOf = (name: ServiceName): number => {
    let number = 0
    while (taken.has(`${name} ${number}`)) number += 1
    taken.add(`${name} ${number}`)
    return number
  }
  return {
    running,
    names,
    start: async (service: AnyService): Promise<RunningService> => {
      const instance = numberOf(service.name)
      const started = await startService(service, platform, { instance })
      names.add(service.name)
      running.add(started)
      return {
        ...started,
        close: async () => {
          running.delete(started)
          await started.close()
          taken.delete(`${service.name} ${instance}`)
        },
      }
    },
    close: async () => {
      await Promise.all([...running].map((one) => one.close()))
    },
  }
}

function envelopeOf<D extends EventDefinition>(
  definition: D,
  { aggregateId, version = 1, payload }: { aggregateId: string; version?: number; payload: PayloadOf<D> },
): EventEnvelope {
  return {
    ...{ specversion: '1.0', id: systemIds.next<'event'>(), source: '/cloudphone/test' },
    ...{ type: definition.name, subject: aggregateId, time: new Date().toISOString() },
    ...{ datacontenttype: 'application/json', dataschema: schemaName(definition) },
    ...{ aggregatetype: definition.aggregate, aggregateversion: version, data: payload },
  }
}

/** Rounds, until one in which nobody heard anything: what is heard may start sagas, and what these tell is heard. */
async function drain(
  residents: ReturnType<typeof openResidents>,
  database: TownDatabase,
  bus: Platform['bus'],
): Promise<void> {
  let heard: number | undefined
  for (;;) {
    const before: number = heard ?? (await database.heard(residents.names))
    await Promise.all([...residents.running].map((one) => one.drain()))
    await bus.idle()
    heard = await database.heard(residents.names)
    if (heard === before) return
  }
}
