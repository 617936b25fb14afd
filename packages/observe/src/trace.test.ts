import { expect, test } from 'vitest'
import { openLog } from './log.ts'
import { currentSpan, currentTraceparent, inSpan, inTrace, newTraceparent, wellFormed } from './trace.ts'

const ids = `${'ab'.repeat(16)}-${'cd'.repeat(8)}`

test.each([
  [`00-${ids}-01`, `00-${ids}-01`],
  [`00-${ids}-00`, `00-${ids}-00`],
  ['a later version is read as far as it is known', `cc-${ids}-01-what-the-future-adds`, `00-${ids}-01`],
])('%s is taken up', (...given) => {
  expect(wellFormed(given.at(-2))).toBe(given.at(-1))
})

test.each([
  [undefined],
  [''],
  [`00-${ids}`],
  [`00-${ids}-01-more`],
  [`00-${ids}-01 `],
  [`00-${ids.toUpperCase()}-01`],
  [`ff-${ids}-01`],
  [`00-${'0'.repeat(32)}-${'cd'.repeat(8)}-01`],
  [`00-${'ab'.repeat(16)}-${'0'.repeat(16)}-01`],
])('%s is replaced', (given) => {
  expect(wellFormed(given)).toBeUndefined()
  const running = inTrace(given, currentTraceparent)
  expect(running).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/)
  expect(running).not.toBe(given)
})

test('without a tracer no span is made: work runs in the trace as it came', async () => {
  const given = newTraceparent()
  const facts = { name: 'work', kind: 'internal', parent: given } as const
  const seen = await inTrace(given, () =>
    inSpan(undefined, facts, async (span) => [span, currentSpan(), currentTraceparent()]),
  )
  expect(seen).toEqual([undefined, undefined, given])
})

test('a line of the log names its trace, and none where there is none', () => {
  const lines: string[] = []
  const log = openLog({ level: 'info', format: 'json', destination: { write: (line) => lines.push(line) } })
  inTrace(`00-${ids}-01`, () => log.info({ event: 'inside' }))
  log.info({ event: 'outside' })
  const [inside, outside] = lines.map((line) => JSON.parse(line))
  expect(inside).toMatchObject({ event: 'inside', trace_id: 'ab'.repeat(16), span_id: 'cd'.repeat(8) })
  expect(Object.keys(outside)).not.toContain('trace_id')
})
