import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { OpenAndroid } from '../android/android.ts'
import { ensurePrivateDirectory, readJson, writeFileAtomic } from './atomic-file.ts'
import { EventLog } from './event-log.ts'
import { delayOf, sufferFault } from './fault-effect.ts'
import { FaultStore } from './fault-store.ts'
import type {
  CreatePhone,
  FaultPlan,
  FaultReport,
  HostInfo,
  PhoneEvent,
  PhoneList,
  PhoneView,
} from './host-api.ts'
import { HostError, phoneNotFound } from './host-error.ts'
import { HostLock } from './host-lock.ts'
import { type HostLog, Phone, type PhoneDeps } from './phone.ts'
import { type PhoneRecord, readRecord } from './phone-record.ts'

/** Files opened at once while loading or stopping a fleet. */
const BATCH = 64
const VERSION = '0.1.0'

export interface PhoneHostOptions {
  readonly dir: string
  readonly openAndroid: OpenAndroid
  readonly now: () => Date
  /** Names the directory's host, minted once. */
  readonly newId: () => string
  readonly log: HostLog
}

/**
 * The phones of one directory:
 * `host.json` its id, `host.lock`, `events.ndjson`, `faults.json`, `phones/<id>/phone.json` and what Android keeps beside
 * it, `trash/` what is being deleted, `forgotten/<id>` phones that an injected fault made disappear.
 */
export class PhoneHost {
  readonly events: EventLog
  readonly #options: PhoneHostOptions
  readonly #lock: HostLock
  readonly #faults: FaultStore
  readonly #hostId: string
  readonly #startedAt: Date
  readonly #phones = new Map<string, Phone>()
  readonly #creating = new Map<string, { phone: Promise<Phone>; cancel: AbortController }>()
  #trashed = 0
  #closing: Promise<void> | undefined

  private constructor(
    options: PhoneHostOptions,
    parts: { lock: HostLock; events: EventLog; faults: FaultStore; hostId: string },
  ) {
    this.#options = options
    this.#lock = parts.lock
    this.events = parts.events
    this.#faults = parts.faults
    this.#hostId = parts.hostId
    this.#startedAt = options.now()
  }

  /** Locks the directory, loads its phones, and marks those that ran as lost. Rejects when another host has it. */
  static async open(options: PhoneHostOptions): Promise<PhoneHost> {
    const { dir } = options
    await ensurePrivateDirectory(dir)
    const lock = HostLock.take(dir)
    try {
      await rm(join(dir, 'trash'), { recursive: true, force: true })
      for (const name of ['phones', 'trash', 'forgotten']) {
        await mkdir(join(dir, name), { recursive: true, mode: 0o700 })
      }
      const host = new PhoneHost(options, {
        lock,
        events: EventLog.open(join(dir, 'events.ndjson')),
        faults: await FaultStore.open(join(dir, 'faults.json')),
        hostId: await hostIdOf(join(dir, 'host.json'), options.newId),
      })
      await host.#load()
      return host
    } catch (error) {
      lock.release()
      throw error
    }
  }

  info(): HostInfo {
    const phones = { created: 0, booting: 0, running: 0, stopped: 0, crashed: 0 }
    for (const phone of this.#phones.values()) phones[phone.record.state] += 1
    return {
      hostId: this.#hostId,
      pid: process.pid,
      version: VERSION,
      startedAt: this.#startedAt.toISOString(),
      phones,
      seq: this.events.lastSeq,
    }
  }

  /** Makes a phone, or finds the one that was made with this id before. */
  async create(spec: CreatePhone): Promise<{ phone: PhoneView; created: boolean }> {
    const pending = this.#creating.get(spec.id)
    if (pending !== undefined) return { phone: sameOrConflict(await pending.phone, spec), created: false }
    const known = this.#phones.get(spec.id)
    if (known !== undefined) return { phone: sameOrConflict(known, spec), created: false }
    const cancel = new AbortController()
    const phone = this.#make(spec, cancel.signal)
    this.#creating.set(spec.id, { phone, cancel })
    try {
      return { phone: (await phone).view(), created: true }
    } finally {
      this.#creating.delete(spec.id)
    }
  }

  list(labels: readonly (readonly [string, string])[]): PhoneList {
    const phones = [...this.#phones.values()]
      .filter((phone) => labels.every(([key, value]) => phone.labels[key] === value))
      .map((phone) => phone.view())
    return { phones, seq: this.events.lastSeq }
  }

  /** Throws 404, and 503 while the host closes: nothing may be started behind its back. */
  get(id: string): Phone {
    if (this.#closing !== undefined) throw shuttingDown()
    const phone = this.#phones.get(id)
    if (phone === undefined) throw phoneNotFound(id)
    return phone
  }

  /** Makes sure that there is no such phone, nor will be by a creation under way. */
  async destroy(id: string): Promise<void> {
    const pending = this.#creating.get(id)
    if (pending !== undefined) {
      pending.cancel.abort()
      // Whether it still came to be is seen below.
      await pending.phone.catch((error: unknown) => error)
    }
    const phone = this.#phones.get(id)
    if (phone === undefined) return
    await sufferFault(await phone.fault('destroy'), 'destroy', this.#closingSignal.signal)
    await this.#remove(phone, 'requested')
  }

  faults(): FaultReport {
    return this.#faults.report
  }

  async setFaults(plan: FaultPlan): Promise<FaultReport> {
    return await this.#faults.replace(plan)
  }

  /** Stops the phones, closes the files and gives the lock back. Idempotent. */
  async close(): Promise<void> {
    this.#closing ??= this.#close()
    await this.#closing
  }

  readonly #closingSignal = new AbortController()

  async #close(): Promise<void> {
    this.#closingSignal.abort()
    for (const { cancel } of this.#creating.values()) cancel.abort()
    await Promise.allSettled([...this.#creating.values()].map(({ phone }) => phone))
    try {
      await inBatches([...this.#phones.values()], async (phone) => {
        await phone.stop('host_shutdown').catch((error: unknown) => {
          this.#options.log('phone.stop_failed', { phoneId: phone.id, error: String(error) })
        })
      })
    } finally {
      this.events.close()
      this.#lock.release()
    }
  }

  async #make(spec: CreatePhone, signal: AbortSignal): Promise<Phone> {
    if (this.#closing !== undefined) throw shuttingDown()
    const fault = await this.#faults.decide({ op: 'create', name: spec.name, labels: spec.labels })
    await sufferFault(fault, 'create', signal)
    for (const other of this.#phones.values()) {
      if (other.name === spec.name) throw nameInUse(spec.name, other.id)
    }
    await rm(this.#forgottenPath(spec.id), { force: true })
    const phone = await Phone.create(this.#dirOf(spec.id), spec, this.#phoneDeps())
    this.#phones.set(spec.id, phone)
    if (fault?.kind === 'disappear') {
      const timer = setTimeout(() => this.#lose(phone), delayOf(fault))
      this.#closingSignal.signal.addEventListener('abort', () => clearTimeout(timer), { once: true })
    }
    return phone
  }

  /** Without a `reason` no event tells of it. */
  async #remove(phone: Phone, reason: string | undefined): Promise<void> {
    try {
      await phone.destroy({ reason, remove: async () => await this.#discard(phone) })
    } catch (error) {
      // Somebody else was faster.
      if (!(error instanceof HostError && error.code === 'phone_not_found')) throw error
    }
  }

  /** The rename takes the phone away at one stroke; what is left over in the trash goes at the next start at the latest. */
  async #discard(phone: Phone): Promise<void> {
    this.#trashed += 1
    const trash = join(this.#options.dir, 'trash', `${phone.id}-${this.#trashed}`)
    await rename(phone.dir, trash)
    this.#phones.delete(phone.id)
    await rm(trash, { recursive: true, force: true })
  }

  #lose(phone: Phone): void {
    const lost = async (): Promise<void> => {
      await writeFile(this.#forgottenPath(phone.id), '')
      await this.#remove(phone, undefined)
    }
    void lost().catch((error: unknown) => {
      this.#options.log('phone.lose_failed', { phoneId: phone.id, error: String(error) })
    })
  }

  #phoneDeps(): PhoneDeps {
    const { openAndroid, now, log } = this.#options
    return {
      openAndroid,
      now,
      log,
      emit: (event) => this.#emit(event, now()),
      fleetFault: async (op, { name, labels }) => await this.#faults.decide({ op, name, labels }),
      lose: (phone) => this.#lose(phone),
    }
  }

  #emit(event: Omit<PhoneEvent, 'seq' | 'at'>, at: Date): void {
    this.events.append({ at: at.toISOString(), ...event })
    const { type, ...fields } = event
    this.#options.log(type, fields)
  }

  async #load(): Promise<void> {
    const dir = join(this.#options.dir, 'phones')
    await inBatches(await readdir(dir), async (id) => {
      const record = await readRecord(join(dir, id))
      if (record === undefined) await rm(join(dir, id), { recursive: true, force: true })
      else this.#phones.set(id, await Phone.load(join(dir, id), record, this.#phoneDeps()))
    })
    await this.#tellWhatWasNotTold()
    await inBatches([...this.#phones.values()], async (phone) => {
      if (isOn(phone.record)) await phone.recordHostLoss()
    })
  }

  /**
   * A kill between a phone's file and the event about it leaves the file ahead of the log. The files are right, and
   * each event that is missing can be told from the two.
   */
  async #tellWhatWasNotTold(): Promise<void> {
    const last = new Map(this.events.events.map((event) => [event.phoneId, event]))
    const complete = (this.events.events[0]?.seq ?? 1) === 1
    for (const phone of this.#phones.values()) {
      const { record } = phone
      const told = last.get(phone.id)
      const about = {
        phoneId: phone.id,
        name: phone.name,
        labels: phone.labels,
        generation: record.generation,
      }
      const unheardOf = told === undefined && complete
      if (unheardOf || told?.type === 'phone.destroyed') {
        this.#emit({ ...about, type: 'phone.created', reason: null }, new Date(record.createdAt))
      }
      if (record.exitedAt === null || isOn(record)) continue
      if (told?.type === 'phone.started' || told?.type === 'phone.booted') {
        const type = record.state === 'stopped' ? 'phone.stopped' : 'phone.crashed'
        this.#emit({ ...about, type, reason: record.exitReason }, new Date(record.exitedAt))
      }
    }
    const forgotten = new Set(await readdir(join(this.#options.dir, 'forgotten')))
    for (const [phoneId, told] of last) {
      if (told.type === 'phone.destroyed' || this.#phones.has(phoneId) || forgotten.has(phoneId)) continue
      const { name, labels, generation } = told
      this.#emit(
        { type: 'phone.destroyed', phoneId, name, labels, reason: 'requested', generation },
        this.#options.now(),
      )
    }
  }

  #dirOf(id: string): string {
    return join(this.#options.dir, 'phones', id)
  }

  #forgottenPath(id: string): string {
    return join(this.#options.dir, 'forgotten', id)
  }
}

function isOn(record: PhoneRecord): boolean {
  return record.state === 'booting' || record.state === 'running'
}

function sameOrConflict(phone: Phone, spec: CreatePhone): PhoneView {
  const view = phone.view()
  if (view.adb.port === spec.adb.port) return view
  throw new HostError({
    code: 'phone_exists',
    status: 409,
    message: `phone ${spec.id} exists with adb port ${view.adb.port}, not ${spec.adb.port}`,
    retryable: false,
  })
}

function nameInUse(name: string, id: string): HostError {
  return new HostError({
    code: 'name_in_use',
    status: 409,
    message: `name ${name} belongs to phone ${id}`,
    retryable: false,
  })
}

function shuttingDown(): HostError {
  return new HostError({
    code: 'shutting_down',
    status: 503,
    message: 'the phone host is shutting down',
    retryable: true,
  })
}

async function hostIdOf(path: string, newId: () => string): Promise<string> {
  const content = await readJson(path)
  if (typeof content === 'object' && content !== null && 'hostId' in content) return String(content.hostId)
  const hostId = newId()
  await writeFileAtomic(path, `${JSON.stringify({ hostId })}\n`)
  return hostId
}

async function inBatches<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const rest = [...items].reverse()
  const lane = async (): Promise<void> => {
    for (let item = rest.pop(); item !== undefined; item = rest.pop()) await work(item)
  }
  await Promise.all(Array.from({ length: BATCH }, lane))
}
