/* The level-triggered net under every saga: compares what the provider has with what the rows say, and mends the difference.
 * Events only make it look sooner. */
import { DeviceFailed } from '@cloudphone/contracts/events/device-events'
import type { DeviceId } from '@cloudphone/contracts/id'
import {
  adoptGeneration,
  liveSagaOf,
  lockDevice,
  markAlive,
  moveDevice,
  type ObservedDevice,
  observeDevices,
} from '../db/device-repo.ts'
import { listNodes } from '../db/node-repo.ts'
import type { DeviceRow } from '../db/schema.ts'
import type { Provider, Resource } from '../providers/provider.ts'
import type { Deps } from './deps.ts'
import { fact, statusChanged, tell } from './facts.ts'
import { nodeLabel } from './phone-spec.ts'
import { planRestart } from './restart.ts'
import { stopFact } from './stop-fact.ts'

/** Resources without a device that one pass destroys at most. */
const DESTROYED_PER_PASS = 10
/** More orphans than this share of all resources look like our own mistake: nothing is destroyed then. */
const ORPHAN_SHARE = 0.2
const FEW_ORPHANS = 10

const DEAD: ReadonlySet<Resource['state']> = new Set(['created', 'stopped', 'crashed'])

interface Death {
  readonly reason: string
  /** Null when nobody saw it. */
  readonly diedAt: Date | null
  /** The phone died with its host. */
  readonly hostsFault: boolean
}

/** Compares and mends, one pass at a time. */
export class Reconciler {
  readonly #deps: Deps
  /** What looked wrong in the pass before: only what is wrong twice is destroyed or stopped. */
  #suspects: ReadonlySet<string> = new Set()

  constructor(deps: Deps) {
    this.#deps = deps
  }

  /** One pass over every provider; one that does not answer is left for the next. Resolves false when any did not. */
  async pass(signal: AbortSignal): Promise<boolean> {
    const suspects = new Set<string>()
    let complete = true
    for (const provider of Object.values(this.#deps.providers)) {
      complete = (await this.#passOver(provider, suspects, signal)) && complete
    }
    this.#suspects = suspects
    return complete
  }

  async #passOver(provider: Provider, suspects: Set<string>, signal: AbortSignal): Promise<boolean> {
    const { database, clock, telemetry } = this.#deps
    // Failures are judged by rows older than the list, and only when they have not changed since: a phone that was started
    // after the list was made is not missing from it.
    const before = (await observeDevices(database.kysely)).filter(
      (row) => row.provider_type === provider.type,
    )
    const seenAt = clock.now()
    let resources: readonly Resource[]
    try {
      resources = await this.#ours(provider, signal)
    } catch (error) {
      telemetry.providerLost(error)
      return false
    }
    const byDevice = new Map(resources.map((resource) => [resource.deviceId, resource]))
    const alive: DeviceId[] = []
    for (const row of before) {
      if (signal.aborted) return false
      if (row.busy) continue
      const resource = byDevice.get(row.id)
      if (row.status === 'RUNNING') await this.#judgeRunning(row, resource, alive)
      if (row.status === 'STOPPED' || row.status === 'ERROR')
        await this.#judgeStopped({ row, resource, provider, suspects })
    }
    await markAlive(database.kysely, alive, seenAt)
    await this.#sweepOrphans(provider, resources, suspects)
    return true
  }

  async #ours(provider: Provider, signal: AbortSignal): Promise<readonly Resource[]> {
    const nodes = (await listNodes(this.#deps.database.kysely)).filter(
      (node) => node.provider_type === provider.type,
    )
    const lists = await Promise.all(nodes.map((node) => provider.list(nodeLabel(node.id), { signal })))
    return lists.flat()
  }

  async #judgeRunning(row: ObservedDevice, resource: Resource | undefined, alive: DeviceId[]): Promise<void> {
    if (resource === undefined) {
      await this.#fail(row, { reason: 'the phone has disappeared', diedAt: null, hostsFault: false })
      return
    }
    if (resource.state === 'running') alive.push(row.id)
    if (!DEAD.has(resource.state)) {
      // Rebooted from inside: the same phone, one generation on.
      if (resource.generation > row.generation) {
        await adoptGeneration(this.#deps.database.kysely, row.id, resource.generation)
      }
      return
    }
    if (resource.exitReason === 'power_off') {
      await this.#stoppedFromInside(row, resource)
      return
    }
    const reason = resource.exitText ?? `the phone is ${resource.state}`
    const hostsFault = resource.exitReason === 'host_lost' || resource.exitReason === 'host_shutdown'
    await this.#fail(row, { reason, diedAt: resource.exitedAt, hostsFault })
  }

  /** Told once per run of the phone: the guarded move is what makes it so. Metering ends at the last proof of life. */
  async #fail(row: DeviceRow, { reason, diedAt, hostsFault }: Death): Promise<void> {
    const { database, outbox, clock, telemetry } = this.#deps
    const failed = await database.transaction(async (tx) => {
      if ((await lockDevice(tx, row.id))?.version !== row.version) return false
      if ((await liveSagaOf(tx, row.id)) !== undefined) return false
      const moved = await moveDevice(tx, row.id, 'fail', {
        events: 2,
        atVersion: row.version,
        set: { last_error: reason, started_at: null },
      })
      if (moved === undefined) return false
      const now = clock.now()
      const proof = diedAt ?? row.last_active_at ?? row.started_at ?? now
      const failedAt = new Date(Math.max(proof.getTime(), row.started_at?.getTime() ?? 0))
      const startedAt = row.started_at?.toISOString() ?? null
      await tell(outbox, tx, moved, [
        fact(DeviceFailed, { reason, startedAt, failedAt: failedAt.toISOString() }),
        statusChanged('RUNNING', 'ERROR', now),
      ])
      const ranForMs = hostsFault
        ? Number.POSITIVE_INFINITY
        : failedAt.getTime() - (row.started_at ?? failedAt).getTime()
      await planRestart(this.#deps, tx, { device: moved, ranForMs })
      return true
    })
    if (failed) telemetry.repaired('phone_failed', row.id, reason)
  }

  /** `reboot -p` or the power menu: the user's own wish, not a failure. */
  async #stoppedFromInside(row: DeviceRow, resource: Resource): Promise<void> {
    const { database, outbox, clock, telemetry } = this.#deps
    await database.transaction(async (tx) => {
      if ((await lockDevice(tx, row.id))?.version !== row.version) return
      if ((await liveSagaOf(tx, row.id)) !== undefined) return
      const set = { started_at: null, restart_attempts: 0 }
      const moved = await moveDevice(tx, row.id, 'stop', { events: 2, atVersion: row.version, set })
      if (moved === undefined) return
      await tell(outbox, tx, moved, [
        stopFact(row.started_at, resource.exitedAt ?? clock.now(), 'user'),
        statusChanged('RUNNING', 'STOPPED', clock.now()),
      ])
    })
    telemetry.repaired('powered_off', row.id)
  }

  /** The phone of a device that should not run is stopped; a stopped device whose phone is gone is in error. */
  async #judgeStopped(found: {
    row: ObservedDevice
    resource: Resource | undefined
    provider: Provider
    suspects: Set<string>
  }): Promise<void> {
    const { row, resource, provider, suspects } = found
    if (resource === undefined ? row.status === 'ERROR' : DEAD.has(resource.state)) return
    const suspect = `${resource === undefined ? 'lost' : 'stray'}:${row.id}:${row.version}`
    suspects.add(suspect)
    if (!this.#suspects.has(suspect)) return
    const { database, outbox, clock, telemetry } = this.#deps
    if (resource !== undefined) {
      await provider.stop(row.id)
      telemetry.repaired('stray_stopped', row.id)
      return
    }
    await database.transaction(async (tx) => {
      if ((await lockDevice(tx, row.id))?.version !== row.version) return
      if ((await liveSagaOf(tx, row.id)) !== undefined) return
      const set = { last_error: 'the phone has disappeared' }
      const moved = await moveDevice(tx, row.id, 'lose', { events: 1, atVersion: row.version, set })
      if (moved !== undefined) await tell(outbox, tx, moved, [statusChanged('STOPPED', 'ERROR', clock.now())])
    })
    telemetry.repaired('phone_lost', row.id)
  }

  /** The rows are read after the list: a phone that was in it and has no row now had its row taken away, not yet to come. */
  async #sweepOrphans(
    provider: Provider,
    resources: readonly Resource[],
    suspects: Set<string>,
  ): Promise<void> {
    const { database, telemetry } = this.#deps
    const known = new Set((await observeDevices(database.kysely)).map((row) => row.id))
    const orphans = resources.filter(({ deviceId }) => !known.has(deviceId))
    for (const { deviceId } of orphans) suspects.add(`orphan:${deviceId}`)
    const twice = orphans.filter(({ deviceId }) => this.#suspects.has(`orphan:${deviceId}`))
    if (twice.length > FEW_ORPHANS && twice.length > resources.length * ORPHAN_SHARE) {
      telemetry.brake(twice.length, resources.length)
      return
    }
    for (const { deviceId, name } of twice.slice(0, DESTROYED_PER_PASS)) {
      if ((await liveSagaOf(database.kysely, deviceId)) !== undefined) continue
      await provider.destroy(deviceId)
      telemetry.repaired('orphan_destroyed', deviceId, name)
    }
  }
}
