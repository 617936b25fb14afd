import type { EventEnvelope } from '@cloudphone/contracts/event'
import { systemIds } from '@cloudphone/contracts/id'
import type { Bus, Delivery, Verdict } from '../bus.ts'

/** An adapter under test: an empty broker, and the module that opens a bus on it with the drill's topology. */
export interface BusHarness {
  readonly adapter: URL
  readonly settings: unknown
  close(): Promise<void>
}

/** Opens a bus of the adapter under test; the test's end closes it. */
export type Open = () => Promise<Bus>

/** What a test opened, closed in reverse while its database is still there. */
export type Undo = (() => Promise<void> | void)[]

export const MOVED = 'devices.thing-moved'
export const ALL = 'billing.thing'
export const SEEN = 'notifications.thing-seen'
export const retryDelaysMs = [20, 40, 60]
export const done: Verdict = { verdict: 'done' }
export const retry = (message: string): Verdict => ({ verdict: 'retry', error: new Error(message) })
export const versions = (deliveries: readonly Delivery[]): number[] =>
  deliveries.map((delivery) => delivery.envelope.aggregateversion)

/** Makes the envelope of a drill event. */
export function envelope(type: string, thing: string, version: number): EventEnvelope {
  return {
    specversion: '1.0',
    id: systemIds.next(),
    source: 'drill',
    type,
    subject: thing,
    time: new Date().toISOString(),
    datacontenttype: 'application/json',
    dataschema: `urn:cloudphone:${type}:v1`,
    aggregatetype: 'thing',
    aggregateversion: version,
    data: { note: `${thing} ${version}` },
  }
}

/** Opens a bus with its topology declared. */
export async function declared(open: Open): Promise<Bus> {
  const bus = await open()
  await bus.declare()
  return bus
}

/** Consumes a queue into an array, each delivery answered by `answer`. */
export async function collect(
  bus: Bus,
  queue: string,
  answer: (delivery: Delivery) => Verdict | Promise<Verdict> = () => done,
): Promise<Delivery[]> {
  const got: Delivery[] = []
  await bus.consume(queue, async (delivery) => {
    got.push(delivery)
    return await answer(delivery)
  })
  return got
}

/** Resolves with the first answer that is neither false nor undefined; the test's own time limit ends it otherwise. */
export async function until<Answer>(
  look: () => Answer | Promise<Answer>,
): Promise<Exclude<Answer, false | undefined>> {
  for (;;) {
    const answer = await look()
    if (answer !== false && answer !== undefined) return answer as Exclude<Answer, false | undefined>
    // Real time: the other end is a broker or another process, which cannot be awaited, only asked again.
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}
