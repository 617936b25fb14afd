import fc from 'fast-check'
import type { Schema } from './operations.ts'

/** Texts that have hurt others. None of them looks like what a leak looks like, since a problem may repeat its cause. */
export const oddTexts: readonly string[] = [
  ...['', ' ', '\u0000', 'a\u0000b', '\ud800', 'a\udfffb', '\ufeff', '\ufffe', '\u202eevil\u202c', '\u200b'],
  ...[
    'e\u0301',
    '\u{1f469}\u200d\u{1f4bb}',
    'ﷺ',
    'İ',
    'Ω≈ç√',
    '田中さん',
    '\r\nX-Evil: 1',
    '\u001b[31m',
    '\u007f',
  ],
  ...[
    "' or '1'='1",
    '1; drop table x;--',
    '$(id)',
    '`id`',
    '%s%n',
    '{{7*7}}',
    '#{1}',
    '..',
    '../..',
    '..\\..',
  ],
  ...[
    'null',
    'undefined',
    'NaN',
    'true',
    '0',
    '-1',
    '1e999',
    '0x10',
    '[object Object]',
    '__proto__',
    'constructor',
  ],
  ...[
    '<script>',
    'file://x',
    'http://127.0.0.1:1/',
    '%',
    '%00',
    '*',
    '\\',
    '"',
    '{',
    '}',
    '[]',
    '%_%',
    '\\u0000',
  ],
]

/** Values of every JSON type, and of each at its edges. */
const oddValues: readonly unknown[] = [
  ...[null, true, false, 0, -0, 1, -1, 0.5, 1e-7, 2 ** 31, 2 ** 32, -(2 ** 31) - 1, 2 ** 53, 2 ** 63, 1e308],
  ...[[], [null], [[]], {}, { a: 1 }, { length: 1 }, { toString: 1 }, { toJSON: 1 }, ['a', 'b']],
]

export const oddText: fc.Arbitrary<string> = fc.oneof(
  fc.constantFrom(...oddTexts),
  fc.string({ unit: 'binary', maxLength: 300 }),
)

export const oddValue: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom(...oddValues),
  fc.constantFrom(...oddTexts),
  fc.jsonValue({ maxDepth: 3 }),
)

/** Up to half of the MiB that a body may have. */
export const hugeText: fc.Arbitrary<string> = fc
  .tuple(
    fc.constantFrom('a', '0', ' ', '\u0000', '%', '好', '\u{1f600}', '"', '\\'),
    fc.integer({ min: 66, max: 60_000 }),
  )
  .map(([unit, count]) => unit.repeat(count))

/** Lists or objects in each other. */
export const deepValue: fc.Arbitrary<unknown> = fc
  .tuple(fc.boolean(), fc.integer({ min: 5, max: 3_000 }))
  .map(([isList, depth]) => {
    let value: unknown = null
    for (let level = 0; level < depth; level += 1) value = isList ? [value] : { a: value }
    return value
  })

/** What fits a schema, but for patterns that fast-check cannot read: those get a plain word. */
export function fitting(schema: Schema, name = ''): fc.Arbitrary<unknown> {
  if (schema.const !== undefined) return fc.constant(schema.const)
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum)
  const choices = schema.anyOf ?? schema.oneOf
  if (choices !== undefined) return fc.oneof(...choices.map((one) => fitting(one, name)))
  const [type, ...others] = [schema.type ?? 'string'].flat()
  if (others.length > 0) {
    return fc.oneof(...[type, ...others].map((one) => fitting({ ...schema, type: one ?? 'null' }, name)))
  }
  switch (type) {
    case 'null':
      return fc.constant(null)
    case 'boolean':
      return fc.boolean()
    case 'integer':
      return fc.integer(rangeOf(schema))
    case 'number':
      return fc.double({ noNaN: true, noDefaultInfinity: true, ...rangeOf(schema) })
    case 'array':
      return fc.array(fitting(schema.items ?? {}), {
        minLength: schema.minItems ?? 0,
        maxLength: Math.min(schema.maxItems ?? 3, 3),
      })
    case 'object':
      return fittingObject(schema)
    default:
      return fittingText(schema, name)
  }
}

function rangeOf({ minimum = -100, maximum = 100 }: Schema): { min: number; max: number } {
  return { min: minimum, max: Math.max(minimum, maximum) }
}

function fittingObject({ properties = {}, required = [] }: Schema): fc.Arbitrary<unknown> {
  const fields = Object.entries(properties).map(([name, one]) => [name, fitting(one, name)] as const)
  return fc.record(Object.fromEntries(fields), { requiredKeys: [...required] })
}

function fittingText(schema: Schema, name: string): fc.Arbitrary<string> {
  const { format, pattern, minLength = 0, maxLength = 40 } = schema
  if (format === 'uuid') return fc.uuid()
  if (format === 'email' || name === 'email') {
    return fc.stringMatching(/^[a-z]{1,12}$/).map((word) => `${word}@example.test`)
  }
  if (format === 'date-time') return fc.date({ noInvalidDate: true }).map((date) => date.toISOString())
  if (format === 'binary') return fc.constant('')
  const word = fc.string({
    minLength: Math.max(minLength, 1),
    maxLength: Math.max(minLength, Math.min(maxLength, 40)),
  })
  if (pattern === undefined) return word
  try {
    return fc.stringMatching(new RegExp(pattern, 'u'), { size: 'small' })
  } catch {
    return word
  }
}

/** The values just inside and just outside of what a schema allows. */
export function edges(schema: Schema): readonly unknown[] {
  const choices = schema.anyOf ?? schema.oneOf
  if (choices !== undefined) return choices.flatMap(edges)
  const { minimum, maximum, minLength, maxLength } = schema
  const numbers = [minimum, maximum].flatMap((edge) =>
    edge === undefined ? [] : [edge - 1, edge, edge + 1, edge + 0.5],
  )
  const lengths = [minLength, maxLength].flatMap((edge) =>
    edge === undefined ? [] : [Math.max(0, edge - 1), edge, edge + 1],
  )
  return [
    ...numbers,
    ...lengths.filter((length) => length < 100_000).map((length) => 'n'.repeat(length)),
    ...(schema.enum ?? []).flatMap((one) => [`${String(one)} `, String(one).toLowerCase()]),
    ...['', 0, -1, 2 ** 53],
  ]
}
