/* Terminology:
 * - figure: one measured number with its unit in its name, such as `screencap, median (ms)`
 * - peer: the same number of something else that does the same work, measured in the same run
 * - row: a figure judged: whether it holds what is wanted of it
 */

/** What a figure must keep to. */
export interface Wanted {
  readonly is: '<' | '<=' | '>=' | '>'
  readonly than: number
  /** What is compared: our number (default), or how many times the peer's it is. */
  readonly of?: 'ours' | 'ratio'
}

/** Lowest and highest of the rounds whose median a number is. */
export type Range = readonly [lowest: number, highest: number]

export interface Figure {
  readonly name: string
  readonly ours: number
  readonly oursRange?: Range
  /** Absent when nothing was measured beside it. */
  readonly peer?: number
  readonly peerRange?: Range
  /** Absent when the figure is only told. */
  readonly wanted?: Wanted
}

/** A line of the table, and of the JSON. `ratio` is ours / peer. A figure of which nothing is wanted holds. */
export interface Row {
  readonly name: string
  readonly ours: number | null
  readonly peer: number | null
  readonly ratio: number | null
  readonly wanted: string | null
  readonly holds: boolean
  readonly oursRange?: Range
  readonly peerRange?: Range
}

/** Judges a figure. A measurement that gave no number (NaN, infinite) holds nothing that is wanted. */
export function judge({ name, ours, peer, wanted, oursRange, peerRange }: Figure): Row {
  const ratio = peer === undefined ? Number.NaN : ours / peer
  const judged = wanted?.of === 'ratio' ? ratio : ours
  return {
    name,
    ours: numberOrNull(ours),
    peer: peer === undefined ? null : numberOrNull(peer),
    ratio: numberOrNull(ratio),
    wanted: wanted === undefined ? null : `${wanted.is} ${wanted.than}${wanted.of === 'ratio' ? 'x' : ''}`,
    holds: wanted === undefined || (Number.isFinite(judged) && keeps(judged, wanted)),
    ...(oursRange && { oursRange: shortened(oursRange) }),
    ...(peerRange && { peerRange: shortened(peerRange) }),
  }
}

function keeps(value: number, { is, than }: Wanted): boolean {
  switch (is) {
    case '<':
      return value < than
    case '<=':
      return value <= than
    case '>=':
      return value >= than
    case '>':
      return value > than
  }
}

function shortened([lowest, highest]: Range): Range {
  return [numberOrNull(lowest) ?? 0, numberOrNull(highest) ?? 0]
}

/** Four significant digits: more would claim a precision that no run on a shared machine has. JSON knows no NaN. */
function numberOrNull(value: number): number | null {
  return Number.isFinite(value) ? Number(value.toPrecision(4)) : null
}
