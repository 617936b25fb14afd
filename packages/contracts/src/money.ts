import { z } from 'zod'

/** An amount in millionths of the currency's unit: 1.00 CNY is 1,000,000. Integers only, so that sums are exact. */
export const MicroUnits = z
  .int()
  .meta({ description: 'Millionths of the unit of the currency: 1.00 CNY is 1000000.' })

/** ISO 4217. */
export const Currency = z.enum(['CNY'])
export type Currency = z.infer<typeof Currency>

/** `1000000` -> `1.00`: at least two decimals, no trailing zeros beyond them. */
export function formatMicroUnits(micro: number): string {
  const sign = micro < 0 ? '-' : ''
  const digits = Math.abs(micro).toString().padStart(7, '0')
  const fraction = digits.slice(-6).replace(/0{1,4}$/, '')
  return `${sign}${digits.slice(0, -6)}.${fraction}`
}
