import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { CrashAct } from '@cloudphone/observe/crash-point'
import { type Cell, FROZEN_MS, HANG_MS } from './cells.ts'
import type { Watcher, Worker } from './crew.ts'
import { comesTrue } from './patience.ts'
import { brokerOf, type Scene } from './scene.ts'

export interface CastOptions {
  readonly cell: Cell
  readonly scene: Scene
  /** The visit of the point at which the fault happens. */
  readonly nth: number
}

/** What befalls the workers of a scene in one cell, and who comes in their place. */
export class Cast {
  readonly #options: CastOptions
  readonly #aftermath: Promise<void>[] = []
  #visits = 0
  #begun = 0
  #inHand: { id: string; fence: number }[] = []
  #wallMs = 0
  fired = 0
  faultAtMs = performance.now()

  constructor(options: CastOptions) {
    this.#options = options
  }

  get visits(): number {
    return this.#visits
  }

  /** Whether the fault has begun as often as it should. */
  get isStruck(): boolean {
    return this.#begun === this.#options.cell.times
  }

  /** Resolves when the cell's instances are at work, and watched. */
  async enter(): Promise<void> {
    const { cell, scene } = this.#options
    await scene.cue({ instances: cell.instances, point: cell.point, watcher: this.#watcher })
  }

  /** Resolves when what the fault has brought with it is over: a successor is at work, a server is back. */
  async recovered(): Promise<void> {
    await Promise.all(this.#aftermath)
  }

  /** Resolves when nothing of that is still at work, however it has ended. */
  async spent(): Promise<void> {
    await Promise.allSettled(this.#aftermath)
  }

  /** How long the slowest of the victim's sagas waited for its next owner; undefined when none changed hands. */
  async takeOverMs(): Promise<number | undefined> {
    const { fault, instances, times } = this.#options.cell
    const losesHold = ['kill', 'stop', 'terminate', 'postgres'].includes(fault)
    if (!losesHold || instances === 1 || times === 2 || this.#inHand.length === 0) return undefined
    const rows = await this.#options.scene.database.query<{ at: number | null }>(
      `select (select extract(epoch from min(l.started_at)) * 1000 from saga_step_log l
         where l.saga_id = held.id and l.fence > held.fence)::float8 as at
       from unnest($1::text[], $2::bigint[]) as held (id, fence)`,
      [this.#inHand.map(({ id }) => id), this.#inHand.map(({ fence }) => fence)],
    )
    const waits = rows.flatMap(({ at }) => (at === null ? [] : [at - this.#wallMs]))
    return waits.length === 0 ? undefined : Math.max(0, ...waits)
  }

  readonly #watcher: Watcher = (worker, executorId) => this.#reached(worker, executorId)

  /** A worker stands at the point: the fault happens at the nth visit of all. */
  async #reached(worker: Worker, executorId: string | null): Promise<CrashAct> {
    const { cell, nth, scene } = this.#options
    this.#visits += 1
    const isDue = this.#begun === 0 ? this.#visits >= nth : this.#begun < cell.times
    if (!isDue) return 'go'
    this.#begun += 1
    this.#inHand = await scene.database.query<{ id: string; fence: number }>(
      'select saga_id as id, fence from saga_state where lease_owner = $1 and ended_at is null',
      [executorId],
    )
    this.faultAtMs = performance.now()
    this.#wallMs = Date.now()
    return await this.#act(worker)
  }

  async #act(worker: Worker): Promise<CrashAct> {
    const { cell, scene } = this.#options
    const { ground } = scene
    switch (cell.fault) {
      case 'kill':
        this.#after(this.#replace(worker))
        return 'kill'
      case 'stop':
        this.#after(this.#thaw(worker))
        return 'stop'
      case 'throw':
        this.fired += 1
        return 'throw'
      case 'hang':
        this.fired += 1
        // What comes of its late return belongs to this cell.
        this.#after(sleep(HANG_MS))
        return `hang=${HANG_MS}`
      case 'terminate':
        if ((await scene.terminate(worker)) > 0) this.fired += 1
        return 'go'
      case 'postgres':
        await ground.lane.crash()
        this.fired += 1
        this.#after(ground.lane.start())
        return 'go'
      case 'rabbitmq':
        await brokerOf(ground).kill()
        this.fired += 1
        this.#after(brokerOf(ground).start())
        return 'go'
    }
  }

  #after(work: Promise<void>): void {
    // Awaited in `recovered`; until then its failure is nobody's.
    work.catch(() => undefined)
    this.#aftermath.push(work)
  }

  async #replace(victim: Worker): Promise<void> {
    if ((await victim.ended) !== 'SIGKILL') throw new Error(`worker ${victim.pid} was not killed`)
    this.fired += 1
    const { cell, scene } = this.#options
    if (scene.living().length > 0) return
    const point = this.#begun < cell.times ? cell.point : undefined
    await scene.employ({ point, watcher: this.#watcher })
  }

  async #thaw(victim: Worker): Promise<void> {
    const isFrozen = async (): Promise<boolean> =>
      /\) T /.test(await readFile(`/proc/${victim.pid}/stat`, 'utf8'))
    if (await comesTrue(isFrozen, 5_000)) this.fired += 1
    await sleep(FROZEN_MS)
    victim.signal('SIGCONT')
  }
}
