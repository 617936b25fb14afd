/* Terminology:
 * - contestant: one way to do a piece of work (ours, or a peer's), with a database of its own
 * - round: one contestant's turn: tables emptied, work done, the work verified
 * - void: a round in which something was lost or done twice; it ends the suite
 */

/** One way to do a piece of work. It lives in a process of its own (`contestant-process.ts`) over all its rounds. */
export interface Contestant<Order, Outcome> {
  /** Makes its tables: once. */
  setUp(): Promise<void>
  /** Empties its tables and lays down what a round of this order begins with. */
  clear(order: Order): Promise<void>
  /** Connects and waits for work. */
  open(order: Order): Promise<void>
  /** What is measured. */
  work(order: Order): Promise<Outcome>
  /** Lets go of every connection, so that PostgreSQL's statistics are complete. */
  close(): Promise<void>
  /** Counts in the database. @throws Error when anything was lost, done twice or done in the wrong order. */
  audit(outcome: Outcome): Promise<void>
}

/** What a module in contenders/ exports as `openContestant`; the process of the contestant imports it by its URL. */
export type OpenContestant<Settings, Order, Outcome> = (settings: Settings) => Contestant<Order, Outcome>

/** A round that does not count. */
export class VoidRound extends Error {
  override readonly name = 'VoidRound'
}

/** @throws VoidRound when the two differ. */
export function demandEqual(what: string, found: number, wanted: number): void {
  if (found !== wanted)
    throw new VoidRound(
      `the round is void: ${what}: ${found} instead of ${wanted}, so work was lost or done twice`,
    )
}
