import type { DeviceId } from '@cloudphone/contracts/id'
import { afterCommit, type Tx } from '@cloudphone/db/database'
import type { BillingSchema, UsageRow } from '../db/schema.ts'
import {
  closeRecord,
  findRecord,
  findRunAfter,
  findRunBefore,
  insertLooseEnd,
  insertRecord,
  listLooseEnds,
  lockMeter,
} from '../db/usage-repo.ts'
import type { BillingTelemetry } from '../telemetry.ts'
import { billedSeconds, costMicro } from './cost.ts'
import { type Change, type ClosedBy, type End, type Run, recordIdOf } from './meter.ts'

/** An end with the event that told it. */
interface ToldEnd extends End {
  readonly eventId: string
}

/** Of two ends at one instant the better told one counts, whichever was heard first. */
const precedence: readonly ClosedBy[] = [
  'device.stopped',
  'allocation.released',
  'device.failed',
  'device.deleted',
  'superseded',
]

/** Writes usage from facts, in the consumer's transaction. Any order and any repetition of the facts makes the same bill. */
export class Metering {
  readonly #priceMicroPerHour: number
  readonly #telemetry: BillingTelemetry

  constructor(deps: { priceMicroPerHour: number; telemetry: BillingTelemetry }) {
    this.#priceMicroPerHour = deps.priceMicroPerHour
    this.#telemetry = deps.telemetry
  }

  /** A run began. Without effect when it is known, be it by its end. */
  async begin(tx: Tx<BillingSchema>, run: Run, eventId: string): Promise<void> {
    await lockMeter(tx, run.deviceId)
    await this.#ensure(tx, run, eventId)
  }

  /** A run ended that the fact names: if its start was never heard of, the whole record is written now. */
  async end(tx: Tx<BillingSchema>, run: Run, end: End, eventId: string): Promise<void> {
    await lockMeter(tx, run.deviceId)
    const record = await this.#ensure(tx, run, eventId)
    await this.#shorten(tx, record, { ...end, eventId })
  }

  /** Whatever ran on this phone at `end.at` ran no longer. Kept for starts that are heard of later. */
  async endWhatRan(tx: Tx<BillingSchema>, deviceId: DeviceId, end: End, eventId: string): Promise<void> {
    await lockMeter(tx, deviceId)
    await insertLooseEnd(tx, { deviceId, at: end.at, closedBy: end.by, eventId })
    // Runs before this one end at its start at the latest, so the loose end tells nothing new of them.
    const record = await findRunBefore(tx, { deviceId, at: end.at, edge: 'including' })
    if (record !== undefined) await this.#shorten(tx, record, { ...end, eventId })
  }

  async #ensure(tx: Tx<BillingSchema>, run: Run, eventId: string): Promise<UsageRow> {
    const id = recordIdOf(run)
    const { deviceId, startedAt } = run
    const known = await findRecord(tx, id)
    if (known !== undefined) return known
    const before = await findRunBefore(tx, { deviceId, at: startedAt, edge: 'excluding' })
    if (before !== undefined) await this.#shorten(tx, before, { at: startedAt, by: 'superseded', eventId })
    const after = await findRunAfter(tx, { deviceId, at: startedAt })
    const ends: ToldEnd[] =
      run.allocationId === null ? await listLooseEnds(tx, { deviceId, from: startedAt }) : []
    if (after !== undefined) {
      ends.push({ at: after.start_time, by: 'superseded', eventId: after.opened_by_event })
    }
    const first = ends.toSorted(compareEnds)[0]
    await insertRecord(tx, {
      ...{ id, device_id: deviceId, user_id: run.userId, tenant_id: run.tenantId },
      ...{ allocation_id: run.allocationId, start_time: startedAt, opened_by_event: eventId },
      ...{ price_micro_per_hour: this.#priceMicroPerHour, currency: 'CNY' },
      ...(first !== undefined && this.#columnsOf(startedAt, this.#priceMicroPerHour, first)),
    })
    this.#tell(tx, { kind: 'opened', recordId: id, deviceId })
    if (first !== undefined) this.#tell(tx, { kind: 'closed', recordId: id, deviceId })
    const made = await findRecord(tx, id)
    if (made === undefined) throw new Error(`Usage record ${id} is not there right after its insert`)
    return made
  }

  /** Ends a record at `end` unless it ended before. */
  async #shorten(tx: Tx<BillingSchema>, record: UsageRow, told: ToldEnd): Promise<void> {
    // A clock that ran backwards between two machines must not make a negative use.
    const end = told.at < record.start_time ? { ...told, at: record.start_time } : told
    const { end_time: at, closed_by: by } = record
    if (at !== null && by !== null && compareEnds({ at, by }, end) <= 0) return
    const columns = this.#columnsOf(record.start_time, record.price_micro_per_hour, end)
    await closeRecord(tx, record.id, {
      ...{ endTime: columns.end_time, duration: columns.duration, costMicro: columns.cost_micro },
      ...{ closedBy: end.by, eventId: end.eventId },
    })
    const kind = at === null ? 'closed' : 'corrected'
    this.#tell(tx, { kind, recordId: record.id, deviceId: record.device_id })
  }

  #columnsOf(start: Date, priceMicroPerHour: number, end: ToldEnd) {
    const duration = billedSeconds(start, end.at)
    return {
      ...{ end_time: end.at, duration, cost_micro: costMicro(duration, priceMicroPerHour) },
      ...{ closed_by: end.by, closed_by_event: end.eventId },
    }
  }

  #tell(tx: Tx<BillingSchema>, change: Change): void {
    afterCommit(tx, () => this.#telemetry.metered(change))
  }
}

function compareEnds(one: End, other: End): number {
  return one.at.getTime() - other.at.getTime() || precedence.indexOf(one.by) - precedence.indexOf(other.by)
}
