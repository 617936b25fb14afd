const SECONDS_PER_HOUR = 3600n

/**
 * The cost of a use in millionths of the currency's unit: seconds times the price of an hour, divided by 3600, rounded
 * half to even (IEEE 754-2019, 4.3.1), which over many records favours nobody. Integer arithmetic throughout.
 * @throws RangeError for what is not a whole number from 0, or a cost beyond 2^53 - 1.
 */
export function costMicro(seconds: number, priceMicroPerHour: number): number {
  for (const [name, value] of Object.entries({ seconds, priceMicroPerHour })) {
    if (!Number.isSafeInteger(value) || value < 0) {
      throw new RangeError(`${name} is ${value}; it must be a whole number from 0`)
    }
  }
  const product = BigInt(seconds) * BigInt(priceMicroPerHour)
  const floor = product / SECONDS_PER_HOUR
  const twice = (product % SECONDS_PER_HOUR) * 2n
  const up = twice > SECONDS_PER_HOUR || (twice === SECONDS_PER_HOUR && floor % 2n === 1n)
  const cost = Number(floor + (up ? 1n : 0n))
  if (!Number.isSafeInteger(cost))
    throw new RangeError(`${seconds} s at ${priceMicroPerHour} cost too much to count`)
  return cost
}

/** Whole seconds of a use: a second that was begun but not used up costs nothing. */
export function billedSeconds(start: Date, end: Date): number {
  return Math.max(0, Math.floor((end.getTime() - start.getTime()) / 1000))
}
