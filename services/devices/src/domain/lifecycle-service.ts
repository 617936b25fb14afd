import { type Caller, may } from '@cloudphone/contracts/access'
import type { DeviceStatus } from '@cloudphone/contracts/device'
import type { DeviceId } from '@cloudphone/contracts/id'
import type { AuditVerb } from '@cloudphone/contracts/route'
import type { Tx } from '@cloudphone/db/database'
import type { SagaDefinition } from '@cloudphone/saga/definition'
import type { Sagas } from '@cloudphone/saga/engine'
import { OperationInProgress } from '@cloudphone/saga/errors'
import { findDevice, findTombstone, lockDevice, moveDevice } from '../db/device-repo.ts'
import type { DeviceRow, DevicesSchema } from '../db/schema.ts'
import { problems } from '../errors.ts'
import type { Deps } from './deps.ts'
import { accessOf, moves, resettable } from './device.ts'
import { statusChanged, tell } from './facts.ts'
import type { DeviceResetInput, LifecycleInput, SagaInputs } from './saga-inputs.ts'

export interface Accepted {
  readonly sagaId: string
  readonly device: DeviceRow
}

export type LifecycleDefinitions = {
  readonly [Type in keyof SagaInputs]: SagaDefinition<SagaInputs[Type], Tx<DevicesSchema>>
}

/** One request for a lifecycle operation. */
export interface Asked {
  readonly caller: Caller
  readonly deviceId: DeviceId
  readonly requestKey: string
}

/** Start, stop, reset and delete: each is one transaction that checks the right and starts the saga. */
export class LifecycleService {
  readonly #deps: Deps
  readonly #sagas: Pick<Sagas, 'start'>
  readonly #definitions: LifecycleDefinitions

  constructor(deps: Deps, sagas: Pick<Sagas, 'start'>, definitions: LifecycleDefinitions) {
    this.#deps = deps
    this.#sagas = sagas
    this.#definitions = definitions
  }

  async start(asked: Asked): Promise<Accepted> {
    return await this.#startOrStop(asked, 'start')
  }

  async stop(asked: Asked): Promise<Accepted> {
    return await this.#startOrStop(asked, 'stop')
  }

  async remove(asked: Asked): Promise<Accepted> {
    const accepted = await this.#inTurn(asked, async (tx, device) => {
      refuseHeld(device, asked.caller)
      const input = { deviceId: device.id, userId: device.user_id }
      const started = await this.#begin(tx, asked, this.#definitions.device_deletion, input)
      if (!started.created) return { sagaId: started.sagaId, device }
      const set = { restart_at: null, resume_on_start: false }
      const moved = await moveDevice(tx, device.id, 'delete', { events: 1, set })
      if (moved === undefined) throw illegal(device, 'delete', moves.delete.from)
      await tell(this.#deps.outbox, tx, moved, [
        statusChanged(device.status, 'DELETING', this.#deps.clock.now()),
      ])
      await this.#record(tx, 'device.delete', {
        device,
        after: { status: 'DELETING', sagaId: started.sagaId },
      })
      return { sagaId: started.sagaId, device: moved }
    })
    this.#deps.telemetry.accepted('deletion', asked.deviceId, accepted.sagaId)
    return accepted
  }

  /** Erases what users left on it. A phone that somebody holds is not reset under him: it is when he has left it. */
  async reset(asked: Asked): Promise<Accepted> {
    const accepted = await this.#inTurn(asked, async (tx, device) => {
      refuseHeld(device, asked.caller)
      const input: DeviceResetInput = {
        deviceId: device.id,
        by: device.user_id === asked.caller.userId ? 'user' : 'operator',
        allocationId: null,
        fence: device.fence,
        reason: 'reset',
      }
      const started = await this.#begin(tx, asked, this.#definitions.device_reset, input)
      return await this.#accept(tx, device, { ...started, operation: 'reset', from: resettable })
    })
    this.#deps.telemetry.accepted('reset', asked.deviceId, accepted.sagaId)
    return accepted
  }

  async #startOrStop(asked: Asked, operation: 'start' | 'stop'): Promise<Accepted> {
    const accepted = await this.#inTurn(asked, async (tx, device) => {
      const any = may(asked.caller, 'devices:any')
      const owned = device.user_id === asked.caller.userId || device.holder_user_id === asked.caller.userId
      const input: LifecycleInput = {
        deviceId: device.id,
        by: any && !owned ? 'operator' : 'user',
        allocationId: device.allocation_id,
        fence: device.fence,
      }
      const started = await this.#begin(tx, asked, this.#definitions[`device_${operation}`], input)
      return await this.#accept(tx, device, { ...started, operation, from: moves[operation].from })
    })
    this.#deps.telemetry.accepted(operation, asked.deviceId, accepted.sagaId)
    return accepted
  }

  /** Starts the saga of a request about a device, once; a request that comes again changes nothing. */
  async #begin<Input extends { readonly deviceId: DeviceId }>(
    tx: Tx<DevicesSchema>,
    { caller, requestKey }: Asked,
    definition: SagaDefinition<Input, Tx<DevicesSchema>>,
    input: Input,
  ): Promise<{ sagaId: string; created: boolean }> {
    const { userId, tenantId } = caller
    const request = { businessKey: requestKey, subject: input.deviceId, userId, tenantId }
    const started = await this.#sagas.start(tx, { ...request, definition, input })
    if (!started.created) this.#deps.audit.nothingChanged()
    return started
  }

  /** @throws `illegal_transition` when the request is new and the device is in none of the statuses `from`. */
  async #accept(
    tx: Tx<DevicesSchema>,
    device: DeviceRow,
    begun: {
      sagaId: string
      created: boolean
      operation: 'start' | 'stop' | 'reset'
      from: readonly DeviceStatus[]
    },
  ): Promise<Accepted> {
    const { sagaId, created, operation, from } = begun
    if (created) {
      if (!from.includes(device.status)) throw illegal(device, operation, from)
      await this.#record(tx, `device.${operation}`, { device, after: { sagaId } })
    }
    return { sagaId, device }
  }

  /** The saga goes on from here; what comes of it is told in its timeline. */
  #record(
    tx: Tx<DevicesSchema>,
    verb: AuditVerb,
    { device, after }: { device: DeviceRow; after: object },
  ): Promise<void> {
    const { id: target, tenant_id: tenantId, name, status, user_id: userId } = device
    const before = { name, status, userId, allocationId: device.allocation_id }
    return this.#deps.audit.add(tx, { verb, target, tenantId, before, after })
  }

  /** Runs `work` under the device's lock, once the caller's right to it is clear. */
  async #inTurn(
    { caller, deviceId }: Asked,
    work: (tx: Tx<DevicesSchema>, device: DeviceRow) => Promise<Accepted>,
  ): Promise<Accepted> {
    const { database } = this.#deps
    try {
      return await database.transaction(async (tx) => {
        const device = await lockDevice(tx, deviceId)
        if (device === undefined) throw await absent(this.#deps, caller, deviceId)
        refuse(device, caller)
        return await work(tx, device)
      })
    } catch (error) {
      if (error instanceof OperationInProgress) {
        throw problems.operation_in_progress({ deviceId, sagaId: error.sagaId })
      }
      throw error
    }
  }
}

/** @throws what a caller without the right should read. */
function refuse(device: DeviceRow, caller: Caller): void {
  const asker = { userId: caller.userId, tenantId: caller.tenantId, any: may(caller, 'devices:any') }
  const { id: deviceId } = device
  switch (accessOf(device, asker)) {
    case 'granted':
      return
    case 'hidden':
      throw problems.device_not_found({ deviceId })
    case 'not_yours':
      throw problems.device_forbidden({ deviceId })
    case 'not_allocated':
      throw problems.not_allocated({ deviceId })
  }
}

/** What to say of a device that has no row: gone, or never there (also for other tenants). */
export async function absent(deps: Deps, caller: Caller, deviceId: DeviceId): Promise<Error> {
  const grave = await findTombstone(deps.database.kysely, deviceId)
  if (grave?.kind !== 'creation_failed' || grave.tenant_id !== caller.tenantId) {
    return problems.device_not_found({ deviceId })
  }
  return problems.device_creation_failed({ deviceId, sagaId: grave.saga_id, reason: grave.reason })
}

/** The device a caller may see. */
export async function visibleDevice(deps: Deps, caller: Caller, deviceId: DeviceId): Promise<DeviceRow> {
  const device = await findDevice(deps.database.kysely, deviceId)
  if (device === undefined) throw await absent(deps, caller, deviceId)
  refuse(device, caller)
  return device
}

/** What ends a phone's use by others is for its owner and for operators, and never done under a holder. */
function refuseHeld(device: DeviceRow, caller: Caller): void {
  const { id: deviceId, allocation_id: allocationId } = device
  const owned = device.user_id === caller.userId || may(caller, 'devices:any')
  if (!owned) throw problems.device_forbidden({ deviceId })
  if (allocationId !== null) throw problems.device_allocated({ deviceId, allocationId })
}

function illegal(device: DeviceRow, operation: string, allowed: readonly DeviceStatus[]): Error {
  return problems.illegal_transition({
    deviceId: device.id,
    deviceStatus: device.status,
    operation,
    allowed: allowed.join(' or '),
  })
}
