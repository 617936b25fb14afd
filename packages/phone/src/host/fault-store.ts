import { readJson, writeFileAtomic } from './atomic-file.ts'
import { decideFault, type FaultSubject, newReport } from './faults.ts'
import { type FaultPlan, FaultReport, type FaultRule } from './host-api.ts'

const NO_FAULTS: FaultReport = { seed: 0, rules: [], counts: [] }

/** A fault plan on disk, with its counts: a restarted host goes on drawing where it stopped. */
export class FaultStore {
  readonly #path: string
  #report: FaultReport
  #saving: Promise<void> = Promise.resolve()

  private constructor(path: string, report: FaultReport) {
    this.#path = path
    this.#report = report
  }

  static async open(path: string): Promise<FaultStore> {
    const content = await readJson(path)
    return new FaultStore(path, content === undefined ? NO_FAULTS : FaultReport.parse(content))
  }

  /** A store without a plan whose file does not exist yet. */
  static empty(path: string): FaultStore {
    return new FaultStore(path, NO_FAULTS)
  }

  get report(): FaultReport {
    return this.#report
  }

  async replace(plan: FaultPlan): Promise<FaultReport> {
    this.#report = newReport(plan)
    await this.#save()
    return this.#report
  }

  /** Draws for `subject`; the counts are on disk before the fault happens. */
  async decide(subject: FaultSubject): Promise<FaultRule | undefined> {
    const { rule, next } = decideFault(this.#report, subject)
    if (next === this.#report) return undefined
    this.#report = next
    await this.#save()
    return rule
  }

  async #save(): Promise<void> {
    const write = (): Promise<void> => writeFileAtomic(this.#path, `${JSON.stringify(this.#report)}\n`)
    // The one before may have failed; its caller knows.
    this.#saving = this.#saving.then(write, write)
    await this.#saving
  }
}
