// biome-ignore-all lint/suspicious/noTemplateCurlyInString: pieces of code, quoted as they stand in their files
import type { Guard } from './guard.ts'

const SAGA = 'packages/saga/migrations/0001-saga.sql'
const CHECKPOINT = 'packages/saga/migrations/0002-checkpoint.sql'
const CLAIM = 'packages/saga/src/claim.ts'
const DECIDE = 'packages/saga/src/decide.ts'
const OPERATE = 'packages/saga/src/operate.ts'

const tested = (file: string, named: string): Guard['tests'] => ({
  files: [`packages/saga/src/${file}.test.ts`],
  named,
})

export const sagaGuards: readonly Guard[] = [
  {
    name: 'saga: a checkpoint under an old fence is refused',
    file: CHECKPOINT,
    find: 'and t.fence = p.fence',
    replace: '',
    tests: tested('lease', 'a checkpoint under an old fence'),
  },
  {
    name: 'saga: a checkpoint of an old version is refused',
    file: CHECKPOINT,
    find: 'and t.version = p.version',
    replace: '',
    tests: tested('lease', 'a checkpoint under an old fence'),
  },
  {
    name: 'saga: a checkpoint of an ended saga is refused',
    file: CHECKPOINT,
    find: ' and t.ended_at is null',
    replace: '',
    tests: tested('postgres-store', 'of a saga that has ended'),
  },
  {
    name: 'saga: the fence rises with every claim',
    file: CLAIM,
    find: 'fence = t.fence + 1,',
    replace: 'fence = t.fence,',
    tests: tested('lease', 'a checkpoint under an old fence'),
  },
  {
    name: 'saga: claims pass over rows that others claim (for update skip locked)',
    file: CLAIM,
    find: 'limit ${limit} for update of c skip locked',
    replace: 'limit ${limit}',
    tests: tested('claim', 'a saga that is being claimed is left to its claimant'),
  },
  {
    name: 'saga: what a process holds is nobody else’s to claim',
    file: CLAIM,
    find: 'claimable: sql<boolean>`c.lease_owner is null`',
    replace: 'claimable: sql<boolean>`true`',
    tests: tested('postgres-store', 'what a living process holds is nobody else’s'),
  },
  {
    name: 'saga: a lease that ran out is claimable by others',
    file: CLAIM,
    find: 'c.lease_until < clock_timestamp() or ${gone}) /* real time: a lease */',
    replace: '${gone})',
    tests: tested('postgres-store', 'a lease that ran out is claimable by the sweep only'),
  },
  {
    name: 'saga: trust in a lease ends by the monotonic clock, for all runs in hand',
    file: 'packages/saga/src/crew.ts',
    find: "if (nowMs >= run.trustUntilMs) run.abandon.abort(new Error('lease ran out'))",
    replace: '',
    tests: tested('trust', 'a try whose lease can no longer be trusted is cut off'),
  },
  {
    name: 'saga: trust in a lease ends by the monotonic clock, before each try',
    file: 'packages/saga/src/run.ts',
    find: "if (room.realClock.monotonicMs() >= run.trustUntilMs) run.abandon.abort(new Error('lease ran out'))",
    replace: '',
    tests: tested('trust', 'a process that stood still begins no try'),
  },
  {
    name: 'saga: the intent: the failing step is undone too',
    file: DECIDE,
    find: 'undoIndex: lastUndoable(plan, at.stepIndex),',
    replace: 'undoIndex: lastUndoable(plan, at.stepIndex - 1),',
    tests: tested('decide', 'what may have acted is undone'),
  },
  {
    name: 'saga: an undo that fails is tried for ever',
    file: DECIDE,
    find: 'next: wait(delayMs ?? slowDelayMs(at.attempt - fastMs.length), { untilTimeout: false }),',
    replace: "next: delayMs === undefined ? { kind: 'end' } : wait(delayMs, { untilTimeout: false }),",
    tests: tested('decide', 'an undo that keeps failing is stuck, visible, and tried for ever'),
  },
  {
    name: 'saga: past the point of no return nothing turns back',
    file: DECIDE,
    find: "return at.direction === 'do' && at.stepIndex < plan.pointOfNoReturn",
    replace: "return at.direction === 'do'",
    tests: tested('decide', 'past the point of no return nothing turns it back'),
  },
  {
    name: 'saga: each executor that dies on a step is counted',
    file: CLAIM,
    find: 'deaths = t.deaths + case when claimed.died then 1 else 0 end,',
    replace: 'deaths = t.deaths,',
    tests: tested('postgres-store', 'each process that dies soon after it began counts'),
  },
  {
    name: 'saga: what has killed five executors is quarantined, not tried',
    file: 'packages/saga/src/run.ts',
    find: "if (isPoisoned(row)) return { kind: 'poisoned', deaths: row.deaths }",
    replace: '',
    tests: tested(
      'quarantine',
      'a saga that five executors died on is quarantined, and its step is not tried',
    ),
  },
  {
    name: 'saga: of those suspected to kill one runs at a time',
    file: CLAIM,
    find: 'and c.deaths < ${sql.lit(SUSPECT_DEATHS)}',
    replace: '',
    tests: tested('postgres-store', 'whoever has killed twice is claimed where there is room for a suspect'),
  },
  {
    name: 'saga: one saga per business key',
    file: SAGA,
    find: 'constraint saga_state_business_key unique (saga_type, business_key),',
    replace: '',
    tests: tested('start', 'trap 10: the same request starts one saga'),
  },
  {
    name: 'saga: one live saga per subject',
    file: SAGA,
    find: 'create unique index saga_state_live_subject',
    replace: 'create index saga_state_live_subject',
    tests: tested('start', 'one live saga per subject'),
  },
  {
    name: 'saga: a business key reused with another input is refused',
    file: 'packages/saga/src/start.ts',
    find: 'if (found.input_hash !== inputHash) throw new SagaKeyReused(definition.type, businessKey, found.saga_id)',
    replace: '',
    tests: tested('start', 'the same key for something else is refused'),
  },
  {
    name: 'saga: only legal moves from status to status, by whoever writes',
    file: CHECKPOINT,
    find: 'when (old.status <> new.status and not (',
    replace: 'when (false and not (',
    tests: tested('edges', 'trap 11'),
  },
  {
    name: 'saga: a second reply to one ask is no news',
    file: OPERATE,
    find: "if (waits && row.reply !== null) return 'duplicate'",
    replace: '',
    tests: tested('postgres-store', 'a reply makes the saga due, counts once'),
  },
  {
    name: 'saga: a reply that nobody waits for any more is refused',
    file: OPERATE,
    find: 'row.currentStep === step && row.replyDueInMs !== null && row.endedAt === null',
    replace: 'row.endedAt === null',
    tests: tested('postgres-store', 'a reply that nobody waits for is refused'),
  },
  {
    name: 'saga: an operator’s undo waits until the effect that it undoes is over',
    file: OPERATE,
    find: 'const delayMs = await leaseLeftMs(tx, sagaId)',
    replace: 'const delayMs = 0',
    tests: tested('turn-back', 'turned back in the middle of a try'),
  },
]
