/* What is simulated, drawn by fast-check: definitions of many shapes, how their effects behave try by try, how many
 * processes there are and how well their clocks go. */
import fc from 'fast-check'

/** How one try of a step goes, apart from what the schedule does to it. */
export type Behaviour =
  | 'works'
  /** Fails, and may be tried again. */
  | 'fails'
  /** Acts, and then says that it failed. */
  | 'acts and fails'
  /** Fails for good. */
  | 'refuses'
  | 'acts and refuses'
  /** Never ends by itself; heeds its signal. */
  | 'hangs'
  /** Acts, never ends and does not heed its signal: only where the target keeps tombstones. */
  | 'acts and is deaf'
  /** Takes its process along. */
  | 'kills'
  | 'acts and kills'

export interface StepShape {
  readonly kind: 'local' | 'call' | 'ask'
  readonly undoable: boolean
  /** A call's rows beside its effect. */
  readonly records: boolean
  /** How the outside refuses what comes too late: by the fence, or by a tombstone that each undo leaves. */
  readonly target: 'checks fences' | 'keeps tombstones'
  /** The first tries; those after them work. */
  readonly tries: readonly Behaviour[]
  readonly undoTries: readonly Behaviour[]
  /** Its undo never works: the saga gets stuck. */
  readonly undoIsBroken: boolean
  readonly delaysMs: readonly number[] | undefined
  readonly timeoutMs: number
}

export interface DefinitionShape {
  readonly steps: readonly StepShape[]
  /** Index of the first step after it; none when beyond the last step. */
  readonly pointOfNoReturn: number
  readonly timeoutMs: number
  readonly hasHooks: boolean
}

export interface Scenario {
  readonly definitions: readonly DefinitionShape[]
  readonly sagas: readonly {
    readonly definition: number
    readonly startsAtMs: number
    /** A process that runs sagas may take the one it starts into its own hands; the others find it. */
    readonly startedBy: 'a process' | 'somebody else'
  }[]
  /** The rate of each process's clock: 1 is right. As many processes as clocks. */
  readonly clocks: readonly number[]
  readonly leaseTtlMs: number
  readonly sweepMs: number
  readonly concurrency: number
  /**
   * A world that neither checks fences nor keeps tombstones: all it has is the leases. In it requests are heard as
   * they are sent, a process knows at once that its session is lost, and it cannot be stopped between the look at its
   * clock and its request, since nothing but a fence at the target helps against that.
   */
  readonly trusts: boolean
}

const behaviour = fc.oneof(
  { weight: 6, arbitrary: fc.constant<Behaviour>('works') },
  {
    weight: 6,
    arbitrary: fc.constantFrom<Behaviour>('fails', 'acts and fails', 'hangs', 'acts and is deaf'),
  },
  { weight: 1, arbitrary: fc.constantFrom<Behaviour>('refuses', 'acts and refuses') },
  { weight: 1, arbitrary: fc.constantFrom<Behaviour>('kills', 'acts and kills') },
)

const behaviours = fc.oneof(
  { weight: 8, arbitrary: fc.constant<readonly Behaviour[]>([]) },
  { weight: 6, arbitrary: fc.array(behaviour, { minLength: 1, maxLength: 4 }) },
  // Five deaths on one step quarantine.
  {
    weight: 1,
    arbitrary: fc
      .integer({ min: 2, max: 7 })
      .map((times) =>
        Array.from({ length: times }, (_, at): Behaviour => (at % 2 ? 'kills' : 'acts and kills')),
      ),
  },
)

const step: fc.Arbitrary<StepShape> = fc.record({
  kind: fc.constantFrom<StepShape['kind']>('local', 'call', 'call', 'ask'),
  undoable: fc.oneof(
    { weight: 7, arbitrary: fc.constant(true) },
    { weight: 1, arbitrary: fc.constant(false) },
  ),
  records: fc.boolean(),
  target: fc.constantFrom<StepShape['target']>('checks fences', 'keeps tombstones'),
  tries: behaviours,
  undoTries: fc.oneof(
    { weight: 3, arbitrary: fc.constant<readonly Behaviour[]>([]) },
    { weight: 1, arbitrary: behaviours },
  ),
  undoIsBroken: fc.oneof(
    { weight: 30, arbitrary: fc.constant(false) },
    { weight: 1, arbitrary: fc.constant(true) },
  ),
  delaysMs: fc.constantFrom<readonly number[] | undefined>(undefined, [], [500], [1_000, 2_000, 4_000]),
  timeoutMs: fc.constantFrom(2_000, 8_000, 20_000, 30_000),
})

const definition: fc.Arbitrary<DefinitionShape> = fc
  .record({
    steps: fc.array(step, { minLength: 1, maxLength: 5, size: 'max' }),
    pointOfNoReturn: fc.oneof(
      { weight: 2, arbitrary: fc.constant(99) },
      { weight: 1, arbitrary: fc.integer({ min: 0, max: 4 }) },
    ),
    timeoutMs: fc.constantFrom(3_000, 15_000, 60_000, 600_000),
    hasHooks: fc.boolean(),
  })
  .map((shape) => ({
    ...shape,
    pointOfNoReturn: Math.min(shape.pointOfNoReturn, shape.steps.length),
  }))

export const scenario: fc.Arbitrary<Scenario> = fc.record({
  definitions: fc.array(definition, { minLength: 1, maxLength: 2, size: 'max' }),
  sagas: fc.array(
    fc.record({
      definition: fc.nat(1),
      startsAtMs: fc.constantFrom(0, 0, 10, 3_000),
      startedBy: fc.constantFrom<'a process' | 'somebody else'>('a process', 'somebody else'),
    }),
    {
      minLength: 1,
      maxLength: 4,
      size: 'max',
    },
  ),
  // A lease is trusted for nine tenths of its time: clocks may differ by a tenth, and here by a twentieth.
  clocks: fc.array(fc.constantFrom(1, 1, 0.95, 1.05), { minLength: 2, maxLength: 3, size: 'max' }),
  leaseTtlMs: fc.constantFrom(10_000, 10_000, 30_000),
  sweepMs: fc.constantFrom(3_000, 9_000),
  concurrency: fc.constantFrom(1, 2, 8),
  trusts: fc.oneof({ weight: 3, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
})
