import {
  DeviceCreated,
  DeviceCreationFailed,
  DeviceDeleted,
  DeviceStarted,
} from '@cloudphone/contracts/events/device-events'
import type { DeviceId } from '@cloudphone/contracts/id'
import { afterCommit, type Tx } from '@cloudphone/db/database'
import { saga } from '@cloudphone/saga/builder'
import { buryDevice, findDevice, moveDevice, touchDevice } from '../db/device-repo.ts'
import { giveRoomBack, takeRoom } from '../db/node-repo.ts'
import { heldPort, releasePorts, takeAdbPort } from '../db/port-repo.ts'
import { oweQuotaRelease } from '../db/quota-release-repo.ts'
import type { DeviceRow, DevicesSchema } from '../db/schema.ts'
import type { AdbKeyApplier } from '../domain/adb-key-applier.ts'
import type { Deps } from '../domain/deps.ts'
import { fact, statusChanged, tell } from '../domain/facts.ts'
import { phoneSpec } from '../domain/phone-spec.ts'
import type { Quota } from '../domain/quota.ts'
import type { DeviceCreationInput } from '../domain/saga-inputs.ts'
import { problems } from '../errors.ts'
import { bootPhone } from '../providers/boot.ts'
import { createFailed, ProviderError } from '../providers/provider.ts'

/** Decision 15; the reservation of quota outlives it by five minutes. */
export const CREATION_TIMEOUT_MS = 600_000
/** Ports that turn out to be taken by strangers: so many are given up before the creation is. */
const MAX_PORT_MOVES = 5
const BLOCKED_SECONDS = 3600

export interface CreationParts {
  readonly quota: Quota
  readonly keys: AdbKeyApplier
  /** Called after the commit of a compensation: quota may have to be given back. */
  readonly quotaOwed: () => void
}

/** The five steps by which a phone comes to be, each with its undo beside it. */
export function deviceCreation(deps: Deps, parts: CreationParts) {
  const step = creationSteps(deps, parts)
  return saga('device_creation', 1, { timeoutMs: CREATION_TIMEOUT_MS })
    .input<DeviceCreationInput, Tx<DevicesSchema>>()
    .local('ALLOCATE_PORTS', async (tx, s) => await step.allocate(tx, s))
    .undo(async (tx, s) => await step.giveBack(tx, s.deviceId))
    .call(
      'CREATE_PROVIDER_DEVICE',
      async (s, { signal, attempt }) => await step.create(s, { signal, attempt }),
    )
    .undo(async (s, { signal }) => await step.destroy(s, signal))
    .local('CREATE_DATABASE_RECORD', async (tx, s) => await step.bind(tx, s))
    .undo(async (tx, s) => await step.unbind(tx, s.deviceId))
    .call('REPORT_QUOTA_USAGE', async (s, { signal }) => {
      if (s.userId !== null) await parts.quota.commit({ deviceId: s.deviceId, userId: s.userId }, signal)
    })
    .undo(async (s, { signal }) => await step.releaseQuota(s, signal))
    .call('START_DEVICE', async (s, { signal, attempt }) => await step.start(s, { signal, attempt }), {
      timeoutMs: (deps.settings.DEVICES_BOOT_WAIT_SECONDS + 30) * 1000,
      record: async (tx, s) => await step.recordStart(tx, s),
    })
    .undo(async (s, { signal }) => await deps.providers[s.providerType].stop(s.deviceId, { signal }))
    .onCompensated(async (tx, s, { sagaId, error }) => await step.bury(tx, s, { sagaId, error }))
    .end()
}

interface Made {
  readonly externalId: string
  readonly containerName: string
  readonly adbHost: string | null
  readonly adbPort: number | null
  readonly keysApplied: number
}

interface Try {
  readonly signal: AbortSignal
  readonly attempt: number
}

function creationSteps(deps: Deps, { keys, quota, quotaOwed }: CreationParts) {
  const { database, outbox, providers, settings, clock, telemetry } = deps

  const rowOf = async (deviceId: DeviceId): Promise<DeviceRow> => {
    const row = await findDevice(database.kysely, deviceId)
    if (row === undefined) throw problems.device_not_found({ deviceId })
    return row
  }

  const createAt = async (input: DeviceCreationInput, nodeId: string, signal: AbortSignal): Promise<Made> => {
    const row = await rowOf(input.deviceId)
    const adbPort = (await heldPort(database.kysely, input.deviceId)) ?? 0
    const adbKeys = await keys.keysFor(row)
    const resource = await providers[input.providerType].create(
      phoneSpec(row, { nodeId, adbPort, adbKeys }),
      {
        signal,
      },
    )
    return {
      externalId: resource.externalId,
      containerName: resource.name,
      adbHost: resource.adb?.host ?? null,
      adbPort: resource.adb?.port ?? null,
      keysApplied: row.keys_wanted,
    }
  }

  /** The phone is new and empty: it is made again at another port. */
  const moveToAnotherPort = async (
    input: DeviceCreationInput & { nodeId: string },
    signal: AbortSignal,
  ): Promise<Made> => {
    await providers[input.providerType].destroy(input.deviceId, { signal })
    await database.transaction(async (tx) => {
      await releasePorts(tx, input.deviceId, {
        kind: 'blocked',
        seconds: BLOCKED_SECONDS,
        reason: 'in use on the node',
      })
      await takePort(tx, input.deviceId, input.nodeId)
    })
    return await createAt(input, input.nodeId, signal)
  }

  const takePort = async (tx: Tx<DevicesSchema>, deviceId: DeviceId, nodeId: string): Promise<number> => {
    const { first, last } = settings.DEVICES_ADB_PORTS
    const port = await takeAdbPort(tx, {
      deviceId,
      nodeId: nodeId as DeviceRow['node_id'] & string,
      first,
      last,
    })
    if (port === undefined) throw problems.ports_exhausted({ node: nodeId, first, last })
    return port
  }

  /** A failure must not hold up the other undos: the release is owed from `bury` on. */
  const releaseQuota = async (input: DeviceCreationInput, signal: AbortSignal): Promise<void> => {
    if (input.userId === null) return
    await quota
      .release(input, signal)
      .catch((error: unknown) => telemetry.quotaReleaseFailed(input.deviceId, error))
  }

  return {
    allocate: async (tx: Tx<DevicesSchema>, input: DeviceCreationInput) => {
      const row = await findDevice(tx, input.deviceId)
      if (row === undefined) throw problems.device_not_found({ deviceId: input.deviceId })
      const node = await takeRoom(tx, {
        deviceId: input.deviceId,
        providerType: input.providerType,
        cpu: row.cpu_cores,
        memoryMb: row.memory_mb,
      })
      if (node === undefined) {
        throw problems.no_capacity({ cpuCores: row.cpu_cores, memoryMB: row.memory_mb })
      }
      if (providers[input.providerType].capabilities.ports) await takePort(tx, input.deviceId, node.id)
      return { nodeId: node.id }
    },

    giveBack: async (tx: Tx<DevicesSchema>, deviceId: DeviceId) => {
      const seconds = settings.DEVICES_PORT_COOLDOWN_SECONDS
      await releasePorts(tx, deviceId, { kind: 'cooldown', seconds, reason: 'creation undone' })
      await giveRoomBack(tx, deviceId)
    },

    create: async (input: DeviceCreationInput & { nodeId: string }, { signal, attempt }: Try) => {
      try {
        // A try that hung may still be at work: it is ended before the next one.
        if (attempt > 1) await providers[input.providerType].destroy(input.deviceId, { signal })
        return await createAt(input, input.nodeId, signal)
      } catch (error) {
        throw createFailed(error)
      }
    },

    destroy: async (input: DeviceCreationInput, signal: AbortSignal) => {
      await providers[input.providerType].destroy(input.deviceId, { signal })
      // Reserved before the saga began, so no step's undo is about it when REPORT_QUOTA_USAGE was never reached.
      await releaseQuota(input, signal)
    },

    releaseQuota,

    bind: async (tx: Tx<DevicesSchema>, s: DeviceCreationInput & Made & { nodeId: string }) => {
      const row = await touchDevice(tx, s.deviceId, {
        events: 1,
        set: {
          node_id: s.nodeId as DeviceRow['node_id'],
          external_id: s.externalId,
          container_id: s.externalId,
          container_name: s.containerName,
          connection_info: JSON.stringify({ adb: { host: s.adbHost, port: s.adbPort } }),
          provider_config: JSON.stringify({ nodeId: s.nodeId }),
          adb_host: s.adbHost,
          adb_port: s.adbPort,
          keys_applied: s.keysApplied,
          announced: true,
        },
      })
      if (row === undefined) throw problems.device_not_found({ deviceId: s.deviceId })
      await tell(outbox, tx, row, [
        fact(DeviceCreated, { providerType: row.provider_type, status: row.status }),
      ])
    },

    unbind: async (tx: Tx<DevicesSchema>, deviceId: DeviceId) => {
      await touchDevice(tx, deviceId, {
        events: 0,
        set: { external_id: null, container_id: null, connection_info: null, adb_host: null, adb_port: null },
      })
    },

    start: async (input: DeviceCreationInput & Made & { nodeId: string }, { signal, attempt }: Try) => {
      const provider = providers[input.providerType]
      const waitSeconds = settings.DEVICES_BOOT_WAIT_SECONDS
      // A boot that got stuck is not waited for twice.
      if (attempt > 1) await provider.stop(input.deviceId, { signal })
      let made: Made = input
      for (let move = 0; ; move += 1) {
        try {
          const { generation } = await bootPhone(provider, input.deviceId, { waitSeconds, signal })
          return { generation, adbPort: made.adbPort, keysApplied: made.keysApplied }
        } catch (error) {
          const taken = error instanceof ProviderError && error.code === 'port_in_use'
          if (!taken || move >= MAX_PORT_MOVES) throw error
          made = await moveToAnotherPort(input, signal)
        }
      }
    },

    recordStart: async (
      tx: Tx<DevicesSchema>,
      s: {
        deviceId: DeviceId
        generation: number
        adbHost: string | null
        adbPort: number | null
        keysApplied: number
      },
    ) => {
      const now = clock.now()
      const row = await moveDevice(tx, s.deviceId, 'boot', {
        events: 2,
        set: {
          generation: s.generation,
          started_at: now,
          last_active_at: now,
          last_error: null,
          adb_port: s.adbPort,
          keys_applied: s.keysApplied,
          connection_info: JSON.stringify({ adb: { host: s.adbHost, port: s.adbPort } }),
        },
      })
      if (row === undefined) throw problems.device_not_found({ deviceId: s.deviceId })
      const startedAt = now.toISOString()
      await tell(outbox, tx, row, [
        statusChanged('CREATING', 'RUNNING', now),
        fact(DeviceStarted, { startedAt }),
      ])
      afterCommit(tx, () => telemetry.done('creation', s.deviceId))
    },

    bury: async (
      tx: Tx<DevicesSchema>,
      input: DeviceCreationInput,
      { sagaId, error }: { sagaId: string; error: string },
    ) => {
      const grave = { sagaId, reason: error, kind: 'creation_failed' as const }
      if (input.userId !== null) await oweQuotaRelease(tx, input.deviceId)
      const row = await buryDevice(tx, input.deviceId, grave)
      if (row === undefined) return
      const failed = fact(DeviceCreationFailed, { sagaId, reason: error })
      const deleted = fact(DeviceDeleted, {
        reason: 'creation_failed',
        deletedAt: clock.now().toISOString(),
      })
      const facts = row.announced ? [failed, deleted] : [failed]
      await tell(outbox, tx, { ...row, version: row.version + facts.length }, facts)
      afterCommit(tx, quotaOwed)
      afterCommit(tx, () => telemetry.failed('creation', input.deviceId, error))
    },
  }
}
