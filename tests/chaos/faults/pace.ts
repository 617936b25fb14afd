/* How fast work was done around a fault. All times are milliseconds of this machine's clock since 1970: the databases of
 * the drills run on it too. */

/** One piece of work: when it was asked for, and when it had ended. */
export interface Work {
  readonly askedMs: number
  readonly endedMs: number
}

/** The phases of a scenario, one behind the other under the same load. */
export interface Phases {
  readonly baselineFromMs: number
  /** The end of the baseline: the first strike. */
  readonly struckMs: number
  /** The last strike, or when the last fault was lifted. */
  readonly liftedMs: number
  /** The load ends. */
  readonly endMs: number
}

export interface Pace {
  /** Ended per second, before the first strike. */
  readonly before: number
  readonly during: number
  /** In the second half of the time between the last fault and the end of the load: it shall have recovered by then. */
  readonly after: number
  /** The longest time in which nothing ended, from the first strike to the end of the load. */
  readonly pauseMs: number
  /** From the last fault until the next end of anything. */
  readonly firstMs: number
  /** From the last fault until all had ended that was asked for before. */
  readonly backlogMs: number
}

/** Of a scenario that was not played to its end. */
export const NO_PACE: Pace = {
  ...{ before: Number.NaN, during: Number.NaN, after: Number.NaN },
  ...{ pauseMs: Number.NaN, firstMs: Number.NaN, backlogMs: Number.NaN },
}

/** @throws RangeError when a phase has no length. */
export function paceOf(works: readonly Work[], phases: Phases): Pace {
  const { baselineFromMs, struckMs, liftedMs, endMs } = phases
  const ends = works.map(({ endedMs }) => endedMs).sort((one, other) => one - other)
  const rate = (fromMs: number, toMs: number): number => {
    if (toMs <= fromMs) throw new RangeError(`a phase from ${fromMs} to ${toMs} has no length`)
    return ends.filter((ms) => ms >= fromMs && ms < toMs).length / ((toMs - fromMs) / 1_000)
  }
  const marks = [struckMs, ...ends.filter((ms) => ms > struckMs && ms < endMs), endMs]
  const old = works.filter(({ askedMs }) => askedMs < liftedMs)
  return {
    before: rate(baselineFromMs, struckMs),
    during: rate(struckMs, Math.max(liftedMs, struckMs + 1)),
    after: rate((liftedMs + endMs) / 2, endMs),
    pauseMs: Math.max(...marks.slice(1).map((ms, at) => ms - (marks[at] ?? ms))),
    firstMs: (ends.find((ms) => ms > liftedMs) ?? Number.POSITIVE_INFINITY) - liftedMs,
    backlogMs: Math.max(0, ...old.map(({ endedMs }) => endedMs - liftedMs)),
  }
}
