// biome-ignore-all lint/suspicious/noTemplateCurlyInString: pieces of code, quoted as they stand in their files
import type { Guard } from './guard.ts'

const ROWS = 'packages/outbox/src/outbox-rows.ts'
const LANES = 'packages/outbox/src/lanes.ts'
const RELAY = 'packages/outbox/src/relay.ts'

const tested = (file: string, named: string): Guard['tests'] => ({
  files: [`packages/outbox/src/${file}.test.ts`],
  named,
})

export const outboxGuards: readonly Guard[] = [
  {
    name: 'outbox: marks under an old epoch of the lane are refused',
    file: ROWS,
    find: 'as mine (lane, epoch) on mine.lane = held.lane and mine.epoch = held.epoch\n    where event_outbox.id = any(',
    replace: 'as mine (lane, epoch) on mine.lane = held.lane\n    where event_outbox.id = any(',
    tests: tested('relay', 'marks under an old epoch are refused'),
  },
  {
    name: 'outbox: marks of a relay that does not own the lane are refused',
    file: ROWS,
    find: '::uuid[]) and event_outbox.lane = held.lane and held.owner = ${owner}',
    replace: '::uuid[]) and event_outbox.lane = held.lane',
    tests: tested('lanes', 'a relay that gave its lanes back marks nothing'),
  },
  {
    name: 'outbox: failures noted under an old epoch of the lane are refused',
    file: ROWS,
    find: 'as mine (lane, epoch) on mine.lane = held.lane and mine.epoch = held.epoch\n    where event_outbox.id = failure.id',
    replace: 'as mine (lane, epoch) on mine.lane = held.lane\n    where event_outbox.id = failure.id',
    tests: tested('lanes', 'a failure noted under an old epoch is refused'),
  },
  {
    name: 'outbox: a lane of a living relay is taken by nobody else',
    file: LANES,
    find: 'where owner is null or owner not in (select owner from live)\n        order by lane',
    replace: 'where owner is distinct from ${owner}\n        order by lane',
    tests: tested('lanes', 'a lane has one relay at a time'),
  },
  {
    name: 'outbox: a lane that another relay is taking is passed over (for update skip locked)',
    file: LANES,
    find: 'for update skip locked)',
    replace: ')',
    tests: tested('lanes', 'a lane that another relay is about to take is left to it'),
  },
  {
    name: 'outbox: the epoch of a lane rises with every taking',
    file: LANES,
    find: 'update outbox_lane set owner = ${owner}, epoch = epoch + 1',
    replace: 'update outbox_lane set owner = ${owner}',
    tests: tested('lanes', 'a lane has one relay at a time'),
  },
  {
    name: 'outbox: nothing is published on lanes that may be another relay’s by now',
    file: RELAY,
    find: 'if (!held.trusted()) return true',
    replace: '',
    tests: tested('lanes', 'a relay that stood still for longer than its lease publishes nothing'),
  },
  {
    name: 'outbox: one event per version of an aggregate',
    file: 'packages/outbox/migrations/0001-event-outbox.sql',
    find: 'create unique index idx_outbox_aggregate',
    replace: 'create index idx_outbox_aggregate',
    tests: tested('relay', 'what does not fit its definition is refused'),
  },
  {
    name: 'outbox: a failed row stops what is behind it in its aggregate',
    file: ROWS,
    find: 'and not exists (${failedBefore})\n    order by position',
    replace: 'order by position',
    tests: tested('lanes', 'a row that failed holds up those behind it in its aggregate'),
  },
  {
    name: 'outbox: a failed row stops no other aggregate',
    file: ROWS,
    find: 'where failed.aggregate_type = waiting.aggregate_type and failed.aggregate_id = waiting.aggregate_id\n          and failed.position',
    replace: 'where failed.position',
    tests: tested('lanes', 'a row that failed holds up those behind it in its aggregate'),
  },
  {
    name: 'outbox: nothing that was selected behind a refused event is sent',
    file: RELAY,
    find: "rows = outcomes.every(({ outcome }) => outcome === 'accepted') ? next : []",
    replace: 'rows = next',
    tests: tested('lanes', 'what was selected while an event was refused does not overtake it'),
  },
  {
    name: 'outbox: a row is marked only when the bus has confirmed it',
    file: RELAY,
    find: 'return await bus.publish(rows.map(envelopeOf))',
    replace:
      "void bus.publish(rows.map(envelopeOf)).catch(() => undefined)\n      return rows.map(() => ({ outcome: 'accepted' as const }))",
    tests: tested('lanes', 'a row that the bus has not taken is not marked'),
  },
  {
    name: 'outbox: an unroutable event is not published',
    file: RELAY,
    find: "if (outcome.outcome === 'accepted') {",
    replace: "if (outcome.outcome !== 'failed') {",
    tests: tested('lanes', 'a row that no queue took is not published'),
  },
]
