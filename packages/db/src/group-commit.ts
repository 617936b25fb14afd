import { DatabaseUnavailable } from './errors.ts'

/** More in one statement gains nothing: at some hundred rows the commit is a small part of its time. */
const MAX_BATCH = 256
/** While one batch commits the next one fills and runs; a third would only make both smaller. */
const MAX_IN_FLIGHT = 2

interface Waiting<Item, Answer> {
  readonly item: Item
  readonly resolve: (answer: Answer) => void
  readonly reject: (error: unknown) => void
}

/**
 * Lets the writes of many callers share a statement and a commit; `write` answers in the order of its items. Nobody waits
 * for company: an item that finds a free place goes at once, and those that come while both places are taken go together
 * after. Each caller goes on only after its own commit, so that nothing is less durable than alone.
 *
 * When a batch is refused, by a conflict or for what one of them holds, each is written alone and gets its own answer.
 */
export function groupCommit<Item, Answer>(
  write: (items: readonly Item[]) => Promise<readonly (Answer | undefined)[]>,
): (item: Item) => Promise<Answer | undefined> {
  let queue: Waiting<Item, Answer | undefined>[] = []
  let inFlight = 0
  let scheduled = false

  const writeAlone = async ({ item, resolve, reject }: Waiting<Item, Answer | undefined>): Promise<void> => {
    try {
      const [answer] = await write([item])
      resolve(answer)
    } catch (error) {
      reject(error)
    }
  }

  const flush = async (batch: readonly Waiting<Item, Answer | undefined>[]): Promise<void> => {
    try {
      const answers = await write(batch.map(({ item }) => item))
      for (const [at, { resolve }] of batch.entries()) resolve(answers[at])
    } catch (error) {
      // What is unavailable for all of them is not asked for one by one.
      const [only] = batch
      if (error instanceof DatabaseUnavailable || (batch.length === 1 && only !== undefined)) {
        for (const { reject } of batch) reject(error)
      } else {
        for (const one of batch) await writeAlone(one)
      }
    }
  }

  const pump = (): void => {
    scheduled = false
    while (inFlight < MAX_IN_FLIGHT && queue.length > 0) {
      const batch = queue.slice(0, MAX_BATCH)
      queue = queue.slice(MAX_BATCH)
      inFlight += 1
      // `flush` gives every error to those whose it is.
      void flush(batch).then(() => {
        inFlight -= 1
        schedule()
      })
    }
  }

  // When what runs now has come to rest: whoever goes on from the same answer comes along. Not a turn of the event loop
  // later, which makes smaller batches (a third fewer sagas a second at 64 at once).
  const schedule = (): void => {
    if (scheduled || queue.length === 0 || inFlight >= MAX_IN_FLIGHT) return
    scheduled = true
    process.nextTick(pump)
  }

  return (item) =>
    new Promise((resolve, reject) => {
      queue.push({ item, resolve, reject })
      schedule()
    })
}
