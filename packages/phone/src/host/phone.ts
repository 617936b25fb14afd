import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Adbd } from '../adb/adbd.ts'
import { PhoneNetwork } from '../adb/phone-network.ts'
import { type AdbPublicKey, parseAdbPublicKey } from '../adb/public-key.ts'
import type { AndroidSystem, OpenAndroid } from '../android/android.ts'
import { hasCode } from './atomic-file.ts'
import { admissionOf, delayOf, sufferFault } from './fault-effect.ts'
import { FaultStore } from './fault-store.ts'
import type {
  CreatePhone,
  FaultOperation,
  FaultRule,
  PhoneEvent,
  PhoneEventType,
  PhoneView,
  WipeReport,
} from './host-api.ts'
import { HostError, phoneNotFound, portInUse } from './host-error.ts'
import { newRecord, type PhoneRecord, RECORD_FILE, writeRecord } from './phone-record.ts'

/** A phone that crashes at once after each restart is restarted ever more slowly, like a container. */
const RESTART_FIRST_MS = 100
const RESTART_SLOWEST_MS = 10_000
/** A run of this length counts as good and forgets the crashes before it. */
const GOOD_RUN_MS = 10_000

export type HostLog = (event: string, fields: Record<string, unknown>) => void

/** What a phone needs of its host. */
export interface PhoneDeps {
  readonly openAndroid: OpenAndroid
  readonly now: () => Date
  readonly log: HostLog
  readonly emit: (event: Omit<PhoneEvent, 'seq' | 'at'>) => void
  /** The fleet's fault for an operation on this phone. */
  readonly fleetFault: (
    op: FaultOperation,
    phone: { name: string; labels: Record<string, string> },
  ) => Promise<FaultRule | undefined>
  /** Injected disappearance: the host forgets the phone without a word. */
  readonly lose: (phone: Phone) => void
}

/** What a started phone has and a stopped one has not. */
interface Power {
  readonly android: AndroidSystem
  readonly adbd: Adbd
  readonly startedAtMs: number
}

/**
 * One phone: `created -> booting -> running -> stopped | crashed -> booting ...`. Operations on it run one after the
 * other; what they wait for (an injected delay, the boot) ends early when a stop or a deletion asks for it.
 */
export class Phone {
  readonly dir: string
  readonly faults: FaultStore
  readonly #deps: PhoneDeps
  #record: PhoneRecord
  #keys: readonly AdbPublicKey[]
  #power: Power | undefined
  /** Aborted at the end of a run, or of an attempt to start. */
  #life = new AbortController()
  #turn: Promise<unknown> = Promise.resolve()
  #gone = false
  #crashesInARow = 0
  #restart: NodeJS.Timeout | undefined
  /** Starts and wipes that were asked for and are not through: a stop ends them wherever they are. */
  readonly #attempts = new Set<AbortController>()
  readonly #watchers = new Set<() => void>()

  constructor(dir: string, record: PhoneRecord, faults: FaultStore, deps: PhoneDeps) {
    this.dir = dir
    this.#record = record
    this.#keys = record.spec.adbKeys.map(parseAdbPublicKey)
    this.faults = faults
    this.#deps = deps
  }

  /** Makes the phone's directory. The phone counts from the moment its `phone.json` is there. */
  static async create(dir: string, spec: CreatePhone, deps: PhoneDeps): Promise<Phone> {
    await mkdir(dir, { recursive: true, mode: 0o700 })
    const record = newRecord(spec, deps.now())
    await writeRecord(dir, record)
    const phone = new Phone(dir, record, FaultStore.empty(faultsPath(dir)), deps)
    phone.#emit('phone.created', null)
    return phone
  }

  static async load(dir: string, record: PhoneRecord, deps: PhoneDeps): Promise<Phone> {
    return new Phone(dir, record, await FaultStore.open(faultsPath(dir)), deps)
  }

  get id(): string {
    return this.#record.spec.id
  }

  get name(): string {
    return this.#record.spec.name
  }

  get labels(): Record<string, string> {
    return this.#record.spec.labels
  }

  get record(): PhoneRecord {
    return this.#record
  }

  view(): PhoneView {
    const { spec, version: _, ...life } = this.#record
    const { id, name, labels, profile, adb, restart } = spec
    const connections = this.#power?.adbd.onlineConnections ?? 0
    return { id, name, labels, profile, adb, restart, connections, ...life }
  }

  /** Resolves when the adb port listens; the boot goes on. A started phone is left as it is. */
  async start(): Promise<void> {
    const life = new AbortController()
    this.#attempts.add(life)
    try {
      await this.#alone(async () => {
        if (this.#power !== undefined) return
        this.#cancelRestart()
        const fault = await this.#fault('start')
        await sufferFault(fault, 'start', life.signal)
        this.#life = life
        await this.#powerOn('requested')
        this.#doomed(fault, life.signal)
      })
    } finally {
      this.#attempts.delete(life)
    }
  }

  /** Resolves when the phone has booted. Rejects when it stops or crashes before, or with the signal's reason. */
  async booted(signal: AbortSignal): Promise<void> {
    while (this.#record.state !== 'running') {
      signal.throwIfAborted()
      if (this.#gone) throw phoneNotFound(this.id)
      if (this.#record.state !== 'booting') {
        throw new HostError({
          code: 'boot_interrupted',
          status: 409,
          message: `phone ${this.id} did not boot: ${this.#record.state} (${this.#record.exitReason ?? 'not started'})`,
          retryable: true,
        })
      }
      await this.#change(signal)
    }
  }

  /** Stops a started phone cleanly; any other is left as it is. */
  async stop(reason: string): Promise<void> {
    this.#interrupt(new Error(`phone stops: ${reason}`))
    await this.#alone(async () => await this.#powerOff('stopped', reason))
  }

  /**
   * Switches off and erases all that users left: everything in the directory but what the phone is (`phone.json`, its
   * faults). A wipe that was cut off is finished by the next one. Resolves with what it did.
   */
  async wipe(): Promise<WipeReport> {
    this.#interrupt(new Error('phone is wiped'))
    const attempt = new AbortController()
    this.#attempts.add(attempt)
    try {
      return await this.#alone(async () => {
        await this.#powerOff('stopped', 'requested')
        const fault = await this.#fault('wipe')
        await sufferFault(fault, 'wipe', attempt.signal)
        const belongings = fault?.kind === 'partial' ? [] : await this.#belongings()
        for (const name of belongings) await rm(join(this.dir, name), { recursive: true, force: true })
        this.#emit('phone.wiped', 'requested')
        return { erased: belongings.length, residue: await this.#belongings() }
      })
    } finally {
      this.#attempts.delete(attempt)
    }
  }

  /** What lies in the directory beside the phone's own files. */
  async #belongings(): Promise<string[]> {
    return (await readdir(this.dir)).filter((name) => name !== RECORD_FILE && name !== FAULTS_FILE)
  }

  /** Dies like after a kernel panic: every connection is cut at once. */
  async crash(reason: string): Promise<void> {
    if (this.#power === undefined) {
      throw new HostError({
        code: 'phone_not_started',
        status: 409,
        message: `phone ${this.id} is ${this.#record.state}, it cannot crash`,
        retryable: false,
      })
    }
    await this.#crashRun(this.#life, reason)
  }

  /** Replaces the adb keys on disk and in the daemon; connections of other keys are cut when this resolves. */
  async setKeys(keys: readonly string[]): Promise<void> {
    await this.#alone(async () => {
      const parsed = keys.map(parseAdbPublicKey)
      // The daemon first: a removed key must not stay usable because the disk is full.
      this.#keys = parsed
      this.#power?.adbd.setKeys(parsed)
      await this.#save({ spec: { ...this.#record.spec, adbKeys: [...keys] } })
    })
  }

  /** What a host that was killed leaves behind: a run that nobody ended. */
  async recordHostLoss(): Promise<void> {
    await this.#alone(async () => await this.#exited('crashed', 'host_lost'))
  }

  /** Switches off for good; `remove` then takes the directory away. Later operations find no phone. */
  async destroy(options: { reason: string | undefined; remove: () => Promise<void> }): Promise<void> {
    this.#interrupt(new Error('phone is destroyed'))
    await this.#alone(async () => {
      if (options.reason === undefined) await this.#cutPower()
      else await this.#powerOff('stopped', options.reason)
      await options.remove()
      this.#gone = true
      this.#wake()
      if (options.reason !== undefined) this.#emit('phone.destroyed', options.reason)
    })
  }

  async fault(op: FaultOperation): Promise<FaultRule | undefined> {
    return await this.#fault(op)
  }

  /** What follows an operation that an injected fault lets succeed. */
  #doomed(rule: FaultRule | undefined, signal: AbortSignal): void {
    if (rule?.kind !== 'crash' && rule?.kind !== 'disappear') return
    const life = this.#life
    const timer = setTimeout(() => {
      if (rule.kind === 'disappear') this.#deps.lose(this)
      else void this.#crashRun(life, 'injected fault').catch((error: unknown) => this.#report('crash', error))
    }, delayOf(rule))
    signal.addEventListener('abort', () => clearTimeout(timer), { once: true })
  }

  async #powerOn(reason: string): Promise<void> {
    const { spec, generation } = this.#record
    const android = await this.#deps.openAndroid({
      profile: { ...spec.profile, id: spec.id, name: spec.name },
      dir: this.dir,
      power: (action) => this.#onPowerMenu(action),
      now: this.#deps.now,
    })
    let adbd: Adbd | undefined
    try {
      adbd = await this.#listen(android)
      const now = this.#deps.now()
      const fresh = { bootedAt: null, exitedAt: null, exitReason: null }
      await this.#save(
        { ...fresh, state: 'booting', generation: generation + 1, startedAt: now.toISOString() },
        { type: 'phone.started', reason },
      )
      this.#power = { android, adbd, startedAtMs: now.getTime() }
    } catch (error) {
      await adbd?.close()
      await android.close()
      throw error
    }
    const life = this.#life
    void this.#boot(android, life).catch((error: unknown) => this.#bootFailed(error, life))
  }

  async #listen(android: AndroidSystem): Promise<Adbd> {
    const { adb, id } = this.#record.spec
    try {
      return await Adbd.listen({
        ...adb,
        android,
        network: new PhoneNetwork(),
        keys: this.#keys,
        power: (action) => this.#onPowerMenu(action),
        log: (event, fields) => this.#deps.log(event, { phoneId: id, ...fields }),
        admit: async () => admissionOf(await this.#fault('adb')),
      })
    } catch (error) {
      if (hasCode(error, 'EADDRINUSE')) throw portInUse(adb.port)
      throw error
    }
  }

  async #boot(android: AndroidSystem, life: AbortController): Promise<void> {
    const fault = await this.#fault('boot')
    this.#doomed(fault, life.signal)
    await sufferFault(fault, 'boot', life.signal)
    await android.boot(life.signal)
    await this.#alone(async () => {
      if (life.signal.aborted) return
      const bootedAt = this.#deps.now().toISOString()
      await this.#save({ state: 'running', bootedAt }, { type: 'phone.booted', reason: null })
    })
  }

  async #bootFailed(error: unknown, life: AbortController): Promise<void> {
    if (life.signal.aborted) return
    try {
      await this.#crashRun(life, `boot failed: ${error instanceof Error ? error.message : String(error)}`)
    } catch (failure) {
      this.#report('boot', failure)
    }
  }

  /** Ends the run that `life` stands for as crashed; another run is none of its business. */
  async #crashRun(life: AbortController, reason: string): Promise<void> {
    if (life.signal.aborted) return
    life.abort(new Error(`phone crashed: ${reason}`))
    await this.#alone(async () => {
      const startedAtMs = this.#power?.startedAtMs ?? 0
      await this.#powerOff('crashed', reason)
      if (this.#record.spec.restart === 'on-failure') this.#scheduleRestart(startedAtMs)
    })
  }

  #scheduleRestart(startedAtMs: number): void {
    const goodRun = this.#deps.now().getTime() - startedAtMs >= GOOD_RUN_MS
    this.#crashesInARow = goodRun ? 1 : this.#crashesInARow + 1
    const waitMs = Math.min(RESTART_FIRST_MS * 2 ** (this.#crashesInARow - 1), RESTART_SLOWEST_MS)
    this.#cancelRestart()
    const timer = setTimeout(() => {
      void this.#alone(async () => {
        // A start or a stop that came first has the say.
        if (this.#power !== undefined || this.#restart !== timer) return
        this.#restart = undefined
        this.#life = new AbortController()
        await this.#powerOn('restart_policy')
      }).catch((error: unknown) => this.#report('restart', error))
    }, waitMs)
    this.#restart = timer
  }

  #cancelRestart(): void {
    clearTimeout(this.#restart)
    this.#restart = undefined
  }

  #interrupt(reason: Error): void {
    this.#cancelRestart()
    for (const attempt of this.#attempts) attempt.abort(reason)
    this.#life.abort(reason)
  }

  #onPowerMenu(action: 'reboot' | 'shutdown' | 'panic'): void {
    const life = this.#life
    if (life.signal.aborted) return
    const done = this.#powerAction(action, life)
    void done.catch((error: unknown) => this.#report(action, error))
  }

  #powerAction(action: 'reboot' | 'shutdown' | 'panic', life: AbortController): Promise<void> {
    if (action === 'shutdown') return this.stop('power_off')
    if (action === 'panic') return this.#crashRun(life, 'kernel panic: sysrq triggered crash')
    return this.#reboot(life)
  }

  async #reboot(life: AbortController): Promise<void> {
    life.abort(new Error('phone reboots'))
    await this.#alone(async () => {
      if (this.#life !== life || this.#power === undefined) return
      await this.#cutPower()
      this.#life = new AbortController()
      try {
        await this.#powerOn('reboot')
      } catch (error) {
        await this.#exited(
          'crashed',
          `reboot failed: ${error instanceof Error ? error.message : String(error)}`,
        )
      }
    })
  }

  async #powerOff(state: 'stopped' | 'crashed', reason: string): Promise<void> {
    if (this.#power === undefined) return
    await this.#cutPower()
    await this.#exited(state, reason)
  }

  async #cutPower(): Promise<void> {
    const power = this.#power
    this.#power = undefined
    await power?.adbd.close()
    await power?.android.close()
  }

  async #exited(state: 'stopped' | 'crashed', reason: string): Promise<void> {
    const next = { ...this.#record, state, exitReason: reason, exitedAt: this.#deps.now().toISOString() }
    try {
      await writeRecord(this.dir, next)
    } finally {
      // Also when the disk refuses: the phone is off, and whoever listens must know.
      this.#become(next, { type: state === 'stopped' ? 'phone.stopped' : 'phone.crashed', reason })
    }
  }

  async #fault(op: FaultOperation): Promise<FaultRule | undefined> {
    const subject = { op, name: this.name, labels: this.labels }
    return (await this.faults.decide(subject)) ?? (await this.#deps.fleetFault(op, subject))
  }

  /** Disk first, then memory and event in one go: who sees the new state finds its event in the log. */
  async #save(
    change: Partial<PhoneRecord>,
    event?: { type: PhoneEventType; reason: string | null },
  ): Promise<void> {
    const next = { ...this.#record, ...change }
    await writeRecord(this.dir, next)
    this.#become(next, event)
  }

  #become(record: PhoneRecord, event?: { type: PhoneEventType; reason: string | null }): void {
    this.#record = record
    if (event !== undefined) this.#emit(event.type, event.reason)
    this.#wake()
  }

  #emit(type: PhoneEventType, reason: string | null): void {
    const { generation } = this.#record
    this.#deps.emit({ type, phoneId: this.id, name: this.name, labels: this.labels, reason, generation })
  }

  /** Runs `work` when all that was asked of this phone before is done. */
  async #alone<T>(work: () => Promise<T>): Promise<T> {
    const run = async (): Promise<T> => {
      if (this.#gone) throw phoneNotFound(this.id)
      return await work()
    }
    const turn = this.#turn.then(run, run)
    this.#turn = turn.catch((error: unknown) => error)
    return await turn
  }

  #report(what: string, error: unknown): void {
    if (!this.#gone) this.#deps.log('phone.failed', { phoneId: this.id, what, error: String(error) })
  }

  #change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#watchers.delete(wake)
        signal.removeEventListener('abort', wake)
        resolve()
      }
      this.#watchers.add(wake)
      signal.addEventListener('abort', wake, { once: true })
    })
  }

  #wake(): void {
    for (const watcher of [...this.#watchers]) watcher()
  }
}

const FAULTS_FILE = 'faults.json'

function faultsPath(dir: string): string {
  return join(dir, FAULTS_FILE)
}
