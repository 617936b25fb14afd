import type { Fate, Verdict } from './bus.ts'

/** How an item may go: with others in a batch, by itself, or not at all any more. */
export type Way = 'together' | 'alone' | 'dropped'

export interface LinesOptions<Item> {
  readonly aggregateOf: (item: Item) => string
  /** Asked when its turn has come. */
  readonly wayOf: (item: Item) => Way
  /** Handles one. Never rejects. */
  readonly alone: (item: Item) => Promise<Verdict>
  /** Handles several, see `HandleBatch`. Without it everything goes alone, as many at a time as there are aggregates. */
  readonly together: ((items: readonly Item[]) => Promise<readonly Fate[]>) | undefined
  /** Called with what a batch has committed. */
  readonly committed: (items: readonly Item[]) => void
  /** Called with what became of one that went alone. The next of its aggregate waits; `rest` takes out those behind it. */
  readonly finished: (item: Item, verdict: Verdict, rest: () => readonly Item[]) => Promise<void> | undefined
  readonly dropped: (item: Item) => void
  /** Called with what will not be started any more, in the order of its lines: the consumer closes. */
  readonly left: (items: readonly Item[]) => void
}

/**
 * Brings what a consumer has in hand to its handlers: items of one aggregate one after the other, others side by side
 * or in batches.
 */
export interface Lines<Item> {
  /** Nothing starts before the caller's turn of events has ended, so that what comes in one go makes one batch. */
  add(item: Item): void
  /** Starts nothing more and resolves when nothing runs. */
  close(): Promise<void>
}

/**
 * One batch commits while the handlers of the other run: with one the database waited for us and we for it. A third
 * brought nothing on two cores (measured).
 */
const MOST_BATCHES = 2
/** Rows of so many events stay locked until the commit; beyond it the commit's share of the cost is small. */
const MOST_IN_BATCH = 200
/** However short of time: at fewer, nearly all the cost of a batch is its commit. */
const LEAST_IN_BATCH = 50
/** As many transactions at a time are asked of the consumer's pool. */
const MOST_ALONE = 32

interface Line<Item> {
  readonly aggregate: string
  /** What waits; none of them runs. */
  items: Item[]
}

export function openLines<Item extends object>(options: LinesOptions<Item>): Lines<Item> {
  const { aggregateOf, together, committed, dropped } = options
  const lines = new Map<string, Line<Item>>()
  // Lines with something to do and nothing running, the longest waiting first.
  const ready = new Set<Line<Item>>()
  // What has to go alone although its kind need not.
  const singled = new WeakSet<Item>()
  const mostAlone = together === undefined ? Number.POSITIVE_INFINITY : MOST_ALONE
  let mostInBatch = MOST_IN_BATCH
  let alone = 0
  let batches = 0
  let pumpIsDue = false
  let closed = false
  const ended = Promise.withResolvers<void>()

  const wayOf = (item: Item): Way => {
    const way = options.wayOf(item)
    return way === 'together' && (together === undefined || singled.has(item)) ? 'alone' : way
  }

  /** Nothing of the line runs any more. */
  const free = (line: Line<Item>): void => {
    if (closed) options.left(line.items.splice(0))
    if (line.items.length > 0) ready.add(line)
    else lines.delete(line.aggregate)
  }

  const settleAlone = async (line: Line<Item>, item: Item): Promise<void> => {
    const verdict = await options.alone(item)
    await options.finished(item, verdict, () => line.items.splice(0))
    free(line)
  }

  const runAlone = async (line: Line<Item>, item: Item): Promise<void> => {
    alone += 1
    await settleAlone(line, item)
    alone -= 1
    next()
  }

  const runBatch = async (batch: ReadonlyMap<Line<Item>, readonly Item[]>): Promise<void> => {
    batches += 1
    const [first] = batch
    const items = [...batch.values()].flat()
    // One by itself needs no statement that is made for many.
    if (first !== undefined && items.length === 1 && items[0] !== undefined)
      await settleAlone(first[0], items[0])
    else await handleBatch(batch, items)
    batches -= 1
    next()
  }

  const handleBatch = async (
    batch: ReadonlyMap<Line<Item>, readonly Item[]>,
    items: readonly Item[],
  ): Promise<void> => {
    const fates = await together?.(items).catch(() => undefined)
    const done: Item[] = []
    let at = 0
    for (const [line, own] of batch) {
      const undone: Item[] = []
      for (const item of own) {
        const fate = fates?.[at++] ?? 'alone'
        if (fate === 'alone') singled.add(item)
        if (fate === 'done' && undone.length === 0) done.push(item)
        else undone.push(item)
      }
      line.items = [...undone, ...line.items]
      free(line)
    }
    // As many as there was time for: those for which there was none would be taken in and put back at every turn.
    if (fates?.includes('later')) mostInBatch = Math.max(LEAST_IN_BATCH, done.length)
    else if (items.length >= mostInBatch) mostInBatch = Math.min(MOST_IN_BATCH, mostInBatch * 2)
    committed(done)
  }

  /** Takes from the head of a line what may go into a batch that has room for so many. */
  const takeFrom = (line: Line<Item>, room: number): readonly Item[] => {
    let count = 0
    for (const item of line.items) {
      if (count === room || wayOf(item) !== 'together') break
      count += 1
    }
    return line.items.splice(0, count)
  }

  const dropHead = (line: Line<Item>): void => {
    for (let head = line.items[0]; head !== undefined && wayOf(head) === 'dropped'; head = line.items[0]) {
      line.items.shift()
      dropped(head)
    }
    if (line.items.length > 0) return
    ready.delete(line)
    lines.delete(line.aggregate)
  }

  const startAlone = (): void => {
    for (const line of ready) {
      dropHead(line)
      const [head] = line.items
      if (head === undefined || wayOf(head) !== 'alone') continue
      if (alone >= mostAlone) return
      line.items.shift()
      ready.delete(line)
      void runAlone(line, head)
    }
  }

  const startBatch = (): void => {
    const batch = new Map<Line<Item>, readonly Item[]>()
    let room = mostInBatch
    for (const line of ready) {
      const taken = takeFrom(line, room)
      if (taken.length === 0) continue
      ready.delete(line)
      batch.set(line, taken)
      room -= taken.length
      if (room === 0) break
    }
    if (batch.size > 0) void runBatch(batch)
  }

  const next = (): void => {
    pumpIsDue = false
    if (!closed) {
      startAlone()
      for (let slot = batches; slot < MOST_BATCHES; slot += 1) startBatch()
    } else if (alone + batches === 0) ended.resolve()
  }

  return {
    add(item) {
      if (closed) {
        options.left([item])
        return
      }
      const aggregate = aggregateOf(item)
      const line = lines.get(aggregate)
      if (line === undefined) {
        const own = { aggregate, items: [item] }
        lines.set(aggregate, own)
        ready.add(own)
      } else line.items.push(item)
      if (pumpIsDue) return
      pumpIsDue = true
      setImmediate(next)
    },
    close() {
      closed = true
      for (const line of lines.values()) options.left(line.items.splice(0))
      next()
      return ended.promise
    },
  }
}
