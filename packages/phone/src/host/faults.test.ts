import { describe, expect, test } from 'vitest'
import { decideFault, globMatches, newReport } from './faults.ts'
import { FaultPlan, type FaultReport } from './host-api.ts'

const subject = { op: 'create', name: 'cloudphone-a-1', labels: { pool: 'x' } } as const

function drawMany(report: FaultReport, times: number): { hits: boolean[]; report: FaultReport } {
  const hits: boolean[] = []
  for (let n = 0; n < times; n += 1) {
    const { rule, next } = decideFault(report, subject)
    hits.push(rule !== undefined)
    report = next
  }
  return { hits, report }
}

describe('faults', () => {
  test('the same seed gives the same faults, also when the counts come back from disk', () => {
    const plan = FaultPlan.parse({ seed: 7, rules: [{ op: 'create', kind: 'fail', probability: 0.3 }] })
    const whole = drawMany(newReport(plan), 1000).hits
    const first = drawMany(newReport(plan), 400)
    const second = drawMany(JSON.parse(JSON.stringify(first.report)), 600)
    expect([...first.hits, ...second.hits]).toEqual(whole)
    const share = whole.filter(Boolean).length / 1000
    expect(share).toBeGreaterThan(0.25)
    expect(share).toBeLessThan(0.35)
    expect(drawMany(newReport({ ...plan, seed: 8 }), 1000).hits).not.toEqual(whole)
  })

  test('probability 0 and 1 are exact, times is a limit', () => {
    const rule = { op: 'create', kind: 'fail' } as const
    const never = newReport({ seed: 1, rules: [{ ...rule, probability: 0 }] })
    const twice = newReport({ seed: 1, rules: [{ ...rule, probability: 1, times: 2 }] })
    expect(drawMany(never, 1000).hits).not.toContain(true)
    expect(drawMany(twice, 4).hits).toEqual([true, true, false, false])
  })

  test('the first rule that matches and hits decides', () => {
    const report = newReport({
      seed: 1,
      rules: [
        { op: 'start', kind: 'fail', probability: 1 },
        { op: 'create', kind: 'slow', probability: 1, match: { name: 'cloudphone-b*' } },
        { op: 'create', kind: 'hang', probability: 1, match: { labels: { pool: 'y' } } },
        { op: 'create', kind: 'fail', probability: 1, match: { name: '*-a-?', labels: { pool: 'x' } } },
      ],
    })
    const { rule, next } = decideFault(report, subject)
    expect(rule?.kind).toBe('fail')
    expect(next.counts.map(({ draws }) => draws)).toEqual([0, 0, 0, 1])
  })

  test('a kind that an operation cannot have is refused with those it can', () => {
    const plan = { seed: 1, rules: [{ op: 'create', kind: 'flap', probability: 1 }] }
    expect(FaultPlan.safeParse(plan).error?.issues[0]?.message).toBe(
      'create takes fail, slow, hang, disappear, too_many_requests',
    )
  })

  test.each([
    ['*', 'anything', true],
    ['a*c', 'abc', true],
    ['a*c', 'abcd', false],
    ['?b', 'ab', true],
    ['?', '', false],
    ['*a*b*', 'xaybz', true],
    ['', 'a', false],
    [`${'*a'.repeat(30)}b`, 'a'.repeat(2000), false],
  ])('glob %s on %s: %s', (glob, text, matches) => {
    expect(globMatches(glob, text)).toBe(matches)
  })
})
