/* Every decision of a schedule as one list of numbers. fast-check's own `fc.scheduler()` draws an order as well, but it
 * cannot shrink one, and knows neither time nor faults: here a zero means "as it would go on a good day" (the oldest first,
 * no fault), so that a schedule with fewer decisions is a simpler one, and whatever comes after the list is a good day. */
import fc from 'fast-check'

/** Each from 0 to 65,535: the low byte picks who goes next, the high one a fault. */
export type Choices = Uint16Array

/** How wild a schedule is: how often, of 256, the order and the faults are drawn. */
const CLIMATES: readonly { readonly order: number; readonly faults: number }[] = [
  { order: 256, faults: 0 },
  { order: 40, faults: 6 },
  { order: 256, faults: 6 },
  { order: 100, faults: 18 },
  { order: 256, faults: 18 },
  { order: 0, faults: 30 },
  { order: 256, faults: 60 },
]

class ChoicesArbitrary extends fc.Arbitrary<Choices> {
  readonly #maxLength: number

  constructor(maxLength: number) {
    super()
    this.#maxLength = maxLength
  }

  generate(random: fc.Random): fc.Value<Choices> {
    const { order, faults } = CLIMATES[random.nextInt(0, CLIMATES.length - 1)] ?? { order: 256, faults: 6 }
    const choices = new Uint16Array(random.nextInt(8, this.#maxLength))
    for (let at = 0; at < choices.length; at += 1) {
      const draw = random.nextInt(0, 2 ** 30 - 1)
      const low = (draw & 0xff) < order ? (draw >> 8) & 0xff : 0
      // A fault is 1 to 255; which one it is, is drawn evenly.
      const high = ((draw >> 16) & 0xff) < faults ? 1 + (((draw >> 24) * 251 + (draw & 0xff)) % 255) : 0
      choices[at] = (high << 8) | low
    }
    return new fc.Value(named(choices), undefined)
  }

  canShrinkWithoutContext(value: unknown): value is Choices {
    return value instanceof Uint16Array
  }

  /** Cuts the end off, then quiets ever shorter stretches: first whole, then only their order. */
  shrink(value: Choices): fc.Stream<fc.Value<Choices>> {
    return new fc.Stream(shrinks(value)).map((one) => new fc.Value(named(one), undefined))
  }
}

/** Schedules of at most `maxLength` decisions. */
export function choices(maxLength: number): fc.Arbitrary<Choices> {
  return new ChoicesArbitrary(maxLength)
}

function* shrinks(value: Choices): IterableIterator<Choices> {
  const length = value.findLastIndex((one) => one !== 0) + 1
  if (length === 0) return
  for (let cut = length; cut >= 1; cut = Math.floor(cut / 2)) yield value.slice(0, length - cut)
  for (const mask of [0, 0xff00, 0x00ff]) {
    for (let width = Math.ceil(length / 2); width >= 1; width = Math.floor(width / 2)) {
      for (let from = 0; from < length; from += width) {
        const part = value.subarray(from, Math.min(from + width, length))
        if (part.every((one) => (one & mask) === one)) continue
        const calmer = value.slice(0, length)
        for (let at = from; at < Math.min(from + width, length); at += 1) calmer[at] = (value[at] ?? 0) & mask
        yield calmer
      }
    }
  }
}

/** So that a report shows a schedule in a line: `at:decision` for each that is not zero. */
function named(choices: Choices): Choices {
  return Object.defineProperty(choices, fc.toStringMethod, {
    enumerable: false,
    value: () =>
      [...choices.entries()]
        .filter(([, one]) => one !== 0)
        .map(([at, one]) => `${at}:${one}`)
        .join(' '),
  })
}
