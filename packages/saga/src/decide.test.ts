import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Decision, decide, type Outcome, type Plan, type Position } from './decide.ts'

const start: Position = {
  status: 'RUNNING',
  direction: 'do',
  stepIndex: 0,
  undoIndex: null,
  attempt: 0,
  retryCount: 0,
  errorMessage: null,
  errorCode: null,
}

function planWith(undoable: readonly boolean[], pointOfNoReturn = undoable.length): Plan {
  return {
    steps: undoable.map((is, index) => ({
      name: `STEP_${index}`,
      undoable: is,
      delaysMs: [1_000, 2_000, 4_000],
    })),
    pointOfNoReturn,
  }
}

const broken: Outcome = { kind: 'failed', error: { message: 'no', code: 'error', retryable: true } }
const refused: Outcome = { kind: 'failed', error: { message: 'never', code: 'invalid', retryable: false } }
const done: Outcome = { kind: 'done' }

function after(plan: Plan, outcomes: readonly Outcome[], from = start): Decision {
  const decisions: Decision[] = []
  let at = from
  for (const outcome of outcomes) {
    const decision = decide(at, plan, outcome)
    decisions.push(decision)
    at = decision.to
  }
  const last = decisions.at(-1)
  if (last === undefined) throw new Error('no outcomes')
  return last
}

describe('forward', () => {
  test('four tries at 0, 1, 2 and 4 s, then back, with the retries counted', () => {
    const plan = planWith([true, true])
    const waits = [1, 2, 3].map((tries) => after(plan, [done, ...Array(tries).fill(broken)]).next)
    expect(waits).toMatchObject([
      { kind: 'wait', delayMs: 1_000 },
      { kind: 'wait', delayMs: 2_000 },
      { kind: 'wait', delayMs: 4_000 },
    ])
    expect(after(plan, [done, broken, broken, broken, broken])).toMatchObject({
      to: { status: 'COMPENSATING', stepIndex: 1, undoIndex: 1, retryCount: 3, errorMessage: 'no' },
      next: { kind: 'go_on' },
    })
  })

  test('a permanent error skips the retries', () => {
    expect(after(planWith([true]), [refused]).to).toMatchObject({
      status: 'COMPENSATING',
      undoIndex: 0,
      retryCount: 0,
      errorCode: 'invalid',
    })
  })

  test('past the point of no return nothing turns it back, and the alarm sounds', () => {
    const plan = planWith([true, true, true], 1)
    const decision = after(plan, [done, ...Array(40).fill(broken)])
    expect(decision.to).toMatchObject({ status: 'RUNNING', stepIndex: 1, attempt: 40 })
    expect(decision.next).toMatchObject({ kind: 'wait', delayMs: 900_000, untilTimeout: false })
    expect(decision.alarm).toBe('no_return')
    expect(after(plan, [done, refused])).toMatchObject({ to: { status: 'RUNNING' }, alarm: 'no_return' })
    expect(() => after(plan, [done, { kind: 'deadline' }])).toThrow('cannot turn back')
  })

  test('an ask waits for its reply, at most until the saga must turn back', () => {
    expect(after(planWith([true]), [{ kind: 'asked', withinMs: 5_000 }]).next).toEqual({
      kind: 'wait',
      delayMs: 5_000,
      untilTimeout: true,
      replyWithinMs: 5_000,
    })
  })
})

describe('backward', () => {
  test('steps without an undo are passed over', () => {
    const plan = planWith([true, false, false, true])
    const back = after(plan, [done, done, refused])
    expect(back.to).toMatchObject({ stepIndex: 2, undoIndex: 0 })
    expect(decide(back.to, plan, done)).toMatchObject({
      to: { status: 'COMPENSATED' },
      next: { kind: 'end' },
    })
  })

  test('an undo that keeps failing is stuck, visible, and tried for ever, at last every 15 min', () => {
    const plan = planWith([true])
    const stuck = after(plan, [refused, broken, broken, broken, broken])
    expect(stuck).toMatchObject({
      to: { status: 'COMPENSATION_STUCK', errorMessage: 'never' },
      next: { kind: 'wait', delayMs: 8_000 },
      alarm: 'stuck',
    })
    expect(after(plan, Array(30).fill(broken), stuck.to).next).toMatchObject({ delayMs: 900_000 })
    expect(decide(stuck.to, plan, done).to.status).toBe('COMPENSATED')
  })

  test('freed, it goes on with the steps before', () => {
    const plan = planWith([true, true])
    const stuck = after(plan, [done, refused, refused])
    expect(stuck.to.status).toBe('COMPENSATION_STUCK')
    expect(decide(stuck.to, plan, done).to).toMatchObject({
      status: 'COMPENSATING',
      undoIndex: 0,
      attempt: 0,
    })
  })
})

const plans = fc
  .array(fc.boolean(), { minLength: 1, maxLength: 6 })
  .chain((undoable) =>
    fc
      .integer({ min: 0, max: undoable.length })
      .map((pointOfNoReturn) => planWith(undoable, pointOfNoReturn)),
  )
const outcomes = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.constant<Outcome>({ kind: 'done', result: { a: 1 } }) },
    { weight: 4, arbitrary: fc.constant(broken) },
    { weight: 1, arbitrary: fc.constant(refused) },
    { weight: 1, arbitrary: fc.constant<Outcome>({ kind: 'deadline' }) },
    { weight: 1, arbitrary: fc.constant<Outcome>({ kind: 'unavailable' }) },
    { weight: 1, arbitrary: fc.constant<Outcome>({ kind: 'asked', withinMs: 10 }) },
  ),
  { maxLength: 80 },
)

interface Story {
  at: Position
  acted: Set<number>
  undone: Set<number>
  ended: boolean
}

/** Walks a plan: whatever a step's try does, the step may have acted. */
function walk(
  plan: Plan,
  given: readonly Outcome[],
  check: (before: Position, decision: Decision) => void,
): Story {
  const story: Story = { at: start, acted: new Set(), undone: new Set(), ended: false }
  for (const outcome of given) {
    const before = story.at
    const mayTurnBack = before.direction === 'do' && before.stepIndex < plan.pointOfNoReturn
    if (outcome.kind === 'deadline' && !mayTurnBack) continue
    if (outcome.kind === 'asked' && before.direction === 'undo') continue
    if (before.direction === 'do') story.acted.add(before.stepIndex)
    else if (outcome.kind === 'done' && before.undoIndex !== null) story.undone.add(before.undoIndex)
    const decision = decide(before, plan, outcome)
    check(before, decision)
    story.at = decision.to
    if (decision.next.kind === 'end') {
      story.ended = true
      break
    }
  }
  return story
}

describe('for every plan and every fate', () => {
  test('what may have acted is undone, in reverse, before it ends COMPENSATED', () => {
    fc.assert(
      fc.property(plans, outcomes, (plan, given) => {
        const order: number[] = []
        const { at, acted, undone } = walk(plan, given, (before, decision) => {
          if (before.direction === 'undo' && decision.to.undoIndex !== before.undoIndex) {
            order.push(before.undoIndex ?? -1)
          }
        })
        expect(order).toEqual([...order].sort((one, other) => other - one))
        if (at.status !== 'COMPENSATED') return
        for (const index of acted) if (plan.steps[index]?.undoable) expect(undone).toContain(index)
      }),
      { numRuns: 300 },
    )
  })

  test('it never jumps a step, never turns twice, never turns past the point of no return', () => {
    fc.assert(
      fc.property(plans, outcomes, (plan, given) => {
        walk(plan, given, (before, { to }) => {
          if (before.direction === 'do') expect(to.stepIndex - before.stepIndex).toBeLessThanOrEqual(1)
          else expect(to).toMatchObject({ direction: 'undo', stepIndex: before.stepIndex })
          if (to.direction === 'undo') expect(to.stepIndex).toBeLessThan(plan.pointOfNoReturn)
          if (before.direction === 'undo') expect(to.retryCount).toBe(before.retryCount)
        })
      }),
      { numRuns: 300 },
    )
  })

  test('when errors cease it ends', () => {
    fc.assert(
      fc.property(plans, outcomes, (plan, given) => {
        const { at, ended } = walk(plan, [...given, ...Array<Outcome>(20).fill(done)], () => undefined)
        expect(ended).toBe(true)
        expect(at.status).toMatch(/^(COMPLETED|COMPENSATED)$/)
      }),
      { numRuns: 300 },
    )
  })

  test('an end is an end', () => {
    const ended: Position = { ...start, status: 'COMPLETED' }
    expect(() => decide(ended, planWith([true]), done)).toThrow('has ended COMPLETED')
  })
})
