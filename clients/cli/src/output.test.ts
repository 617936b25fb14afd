import { stripVTControlCharacters } from 'node:util'
import stringWidth from 'string-width'
import { describe, expect, test } from 'vitest'
import { table } from './output.ts'

interface Row {
  readonly id: string
  readonly status: string
  readonly step: string
  readonly error: string | null
}

const long: Row = {
  id: 'device_creation-0198f0c0-8a3e-7c41-9d1b-5e2f60a7b8c9',
  status: 'COMPENSATION_STUCK',
  step: 'CREATE_PROVIDER_DEVICE',
  error: 'destroy failed: the provider has been away for a quarter of an hour',
}
const rows: readonly Row[] = [long, { ...long, status: 'COMPLETED', error: null }]

const draw = (width: number, some = rows): string[] =>
  stripVTControlCharacters(
    table(
      some,
      [
        { title: 'SAGA', of: (row) => row.id },
        { title: 'STATUS', of: (row) => row.status },
        { title: 'STEP', of: (row) => row.step },
        { title: 'ERROR', of: (row) => row.error, cut: true },
      ],
      width,
    ),
  ).split('\n')

describe('a table', () => {
  test('has one line a row where there is room', () => {
    expect(draw(170)).toEqual([
      expect.stringMatching(/^SAGA +STATUS +STEP +ERROR$/),
      [long.id, long.status, long.step, long.error].join('  '),
      expect.stringMatching(/ {2}COMPLETED +CREATE_PROVIDER_DEVICE {2}-$/),
    ])
  })

  test('cuts texts first', () => {
    const [, line = ''] = draw(120)
    expect(line).toContain(`${long.id}  ${long.status}  ${long.step}  destroy fai`)
    expect(line).toMatch(/…$/)
  })

  test.each([40, 60, 80, 100])('cuts nothing that one may copy at %i columns, and keeps to them', (width) => {
    const lines = draw(width)
    const text = lines.join(' ').replaceAll(/ +/g, ' ')
    for (const whole of [long.id, long.status, long.step, long.error]) expect(text).toContain(whole)
    const tooWide = lines.filter((line) => stringWidth(line) > width)
    expect(tooWide.every((line) => line.trim() === long.id)).toBe(true)
    if (width >= 60) expect(tooWide).toEqual([])
  })

  test('lets no value of others move the cursor', () => {
    expect(draw(200, [{ ...long, error: 'a\u001b[2Jb\nc' }]).at(-1)).toMatch(/a \[2Jb c$/)
  })

  test('says that it is empty', () => expect(draw(80, [])).toEqual(['(none)']))
})
