// biome-ignore-all lint/suspicious/noTemplateCurlyInString: pieces of code, quoted as they stand in their files
import type { Guard } from './guard.ts'

const BUS = 'packages/bus/migrations/embedded/0001-bus.sql'
const CLAIMS = 'packages/bus/migrations/embedded/0002-cheap-claims.sql'
const DELIVERIES = 'packages/bus/src/embedded/deliveries.ts'
const LETTERS = 'packages/bus/src/embedded/dead-letters.ts'
const RECEIVE = 'packages/bus/src/receive.ts'
const BATCH = 'packages/bus/src/receive-batch.ts'
const PUBLISHER = 'packages/bus/src/rabbitmq/publisher.ts'

const tested = (file: string, named: string): Guard['tests'] => ({
  files: [`packages/bus/src/${file}.test.ts`],
  named,
})
const onRabbit = (named: string): Guard['tests'] => ({ files: ['tests/all/rabbitmq.test.ts'], named })

export const busGuards: readonly Guard[] = [
  {
    name: 'inbox: an event that was applied before is not applied again',
    file: RECEIVE,
    find: 'if (!(await enterInbox(tx, { consumer: queue, eventId: event.id, eventTime }))) return false',
    replace: 'await enterInbox(tx, { consumer: queue, eventId: event.id, eventTime })',
    tests: tested('consumer', 'an event that is delivered again has its effect once'),
  },
  {
    name: 'inbox: its row is written in the transaction of the effect',
    file: RECEIVE,
    find: 'await enterInbox(tx, {',
    replace: 'await enterInbox(database.kysely as never, {',
    tests: tested('receive', 'effect and inbox row are committed together'),
  },
  {
    name: 'inbox: one row per consumer and event',
    file: 'packages/bus/migrations/inbox/0001-inbox.sql',
    find: 'primary key (consumer, event_time, event_id)',
    replace: "check (consumer <> '')",
    tests: tested('consumer', 'an event that is delivered again has its effect once'),
  },
  {
    name: 'consumer: an event is done only after its commit',
    file: RECEIVE,
    find: 'const applied = await apply(options, accepted)',
    replace: 'const applied = true\n      void apply(options, accepted).catch(() => undefined)',
    tests: tested('receive', 'effect and inbox row are committed together'),
  },
  {
    name: 'inbox: in a batch, too, nothing is applied twice',
    file: BATCH,
    find: 'if (!isFresh) continue',
    replace: '',
    tests: tested('batch', 'an event that is twice in a batch'),
  },
  {
    name: 'batch: without the event that fails it is tried again',
    file: BATCH,
    find: 'members = without(members, error.eventId)',
    replace: 'throw error',
    tests: tested('batch', 'trap 16: one poison event does not fail the batch it is in'),
  },
  {
    name: 'batch: what is behind the event that fails waits',
    file: BATCH,
    find: 'return members.filter((one, index) => index < at || one.aggregate !== culprit?.aggregate)',
    replace: 'return members.filter((one) => one !== culprit)',
    tests: tested('receive', 'in a batch, what is behind the event that fails waits'),
  },
  {
    name: 'batch: one that fails as a whole leaves each event to itself',
    file: 'packages/bus/src/embedded/queue-consumer.ts',
    find: "return items.map(() => 'alone')",
    replace: "return items.map(() => 'done')",
    tests: tested('embedded/guards', 'a batch that fails as a whole is handled one by one'),
  },
  {
    name: 'bus: an event is in a queue once',
    file: BUS,
    find: '  primary key (queue, event_id)\n) with (fillfactor = 80',
    replace: "  check (queue <> '')\n) with (fillfactor = 80",
    also: [
      {
        file: 'packages/bus/src/embedded/routing.ts',
        find: 'on conflict (queue, event_id) do nothing',
        replace: '',
      },
    ],
    tests: tested('embedded/guards', 'an event that is published twice waits in its queue once'),
  },
  {
    name: 'bus: what was taken from a consumer it cannot take out of the queue',
    file: CLAIMS,
    find: 'and d.position = gone.position and d.claimed_by = settle_and_claim.executor;',
    replace: 'and d.position = gone.position;',
    tests: tested('embedded/guards', 'what was taken from a consumer is no longer its to settle'),
  },
  {
    name: 'bus: what was taken from a consumer it cannot put off',
    file: DELIVERIES,
    find: "interval '1 millisecond'\n    where queue = ${queue} and position = ${position} and claimed_by = ${executor}`",
    replace: "interval '1 millisecond'\n    where queue = ${queue} and position = ${position}`",
    tests: tested('embedded/guards', 'what was taken from a consumer is no longer its to settle'),
  },
  {
    name: 'bus: what was taken from a consumer it cannot bury',
    file: DELIVERIES,
    find: 'and position = ${position} and claimed_by = ${executor}\n      returning *',
    replace: 'and position = ${position}\n      returning *',
    tests: tested('embedded/guards', 'what was taken from a consumer is no longer its to settle'),
  },
  {
    name: 'bus: claims of one queue follow each other',
    file: CLAIMS,
    find: "perform pg_advisory_xact_lock(hashtextextended('cloudphone.bus.claim.' || of_queue, 0));",
    replace: '',
    tests: tested('embedded/guards', 'two claims at once never take two events of one aggregate apart'),
  },
  {
    name: 'bus: nothing overtakes what another consumer has in hand of its aggregate',
    file: CLAIMS,
    find: ' or earlier.claimed_by <> settle_and_claim.executor',
    replace: '',
    tests: tested('embedded/guards', 'two claims at once never take two events of one aggregate apart'),
  },
  {
    name: 'bus: nothing overtakes a retry of its aggregate',
    file: CLAIMS,
    find: 'earlier.due_at > app_now() or ',
    replace: '',
    tests: tested('embedded/embedded', 'the next of the aggregate waits, others do not'),
  },
  {
    name: 'bus: only a known consumer claims',
    file: CLAIMS,
    find: 'if not exists (select from bus_consumer c where c.executor = settle_and_claim.executor) then return; end if;',
    replace: '',
    tests: tested('embedded/guards', 'an executor that is no consumer claims nothing'),
  },
  {
    name: 'bus: a dead letter keeps the id of its event',
    file: DELIVERIES,
    find: 'select queue, event_id, event_type, aggregate, envelope, ${error}, failures + 1,',
    replace: 'select queue, gen_random_uuid(), event_type, aggregate, envelope, ${error}, failures + 1,',
    tests: tested(
      'embedded/embedded',
      'trap 15: dead letters are listed in pages and put back under their own event id',
    ),
  },
  {
    name: 'bus: a replayed dead letter keeps the id of its event',
    file: LETTERS,
    find: 'select queue, event_id, event_type, aggregate, envelope from letter order by id',
    replace: 'select queue, gen_random_uuid(), event_type, aggregate, envelope from letter order by id',
    tests: tested('embedded/guards', 'a dead letter that is replayed and dies again is the same one'),
  },
  {
    name: 'rabbitmq: publishing is mandatory: what no queue takes comes back',
    file: PUBLISHER,
    find: '      mandatory,\n      durable: true,',
    replace: '      mandatory: false,\n      durable: true,',
    tests: onRabbit('one whose queues are not there is unroutable'),
  },
  {
    name: 'rabbitmq: an event counts as taken when the broker has confirmed it',
    file: PUBLISHER,
    find: 'await channel.confirmSelect()',
    replace: '',
    tests: onRabbit('a connection that has gone silent is noticed on both sides'),
  },
]
