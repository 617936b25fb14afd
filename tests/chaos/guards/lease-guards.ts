// biome-ignore-all lint/suspicious/noTemplateCurlyInString: pieces of code, quoted as they stand in their files
import type { Guard } from './guard.ts'

const ROWS = 'packages/lease/src/lease-rows.ts'
const EXECUTOR = 'packages/db/src/executor.ts'

const tested = (named: string): Guard['tests'] => ({ files: ['packages/lease/src/lease.test.ts'], named })
const executorTested = (named: string): Guard['tests'] => ({
  files: ['packages/db/src/executor.test.ts'],
  named,
})

export const leaseGuards: readonly Guard[] = [
  {
    name: 'lease: the epoch rises with every taking',
    file: ROWS,
    find: 'epoch = held.epoch + 1,',
    replace: 'epoch = held.epoch,',
    tests: tested('a loop runs in one process only'),
  },
  {
    name: 'lease: what is held is taken by nobody else',
    file: ROWS,
    find: 'where held.holder is null\n',
    replace: 'where true\n',
    tests: tested('a lease is taken once, and again when it was disposed of'),
  },
  {
    name: 'lease: what was taken from a holder it cannot renew',
    file: ROWS,
    find: 'where lease.name = held.name and lease.epoch = held.epoch and lease.holder = ${holder}\n    returning',
    replace: 'where lease.name = held.name\n    returning',
    tests: {
      files: ['packages/lease/src/lease-rows.test.ts'],
      named: 'who has lost a lease cannot renew it',
    },
  },
  {
    name: 'lease: a write under an old epoch is refused',
    file: ROWS,
    find: 'and epoch = ${lease.epoch} and holder is not null for share',
    replace: 'and holder is not null for share',
    tests: tested('the write of a replaced holder is refused by its epoch'),
  },
  {
    name: 'lease: trust in it ends by the monotonic clock',
    file: 'packages/lease/src/holdings.ts',
    find: "() => lose(holding, 'not renewed in time'),",
    replace: '() => undefined,',
    tests: {
      files: ['packages/lease/src/trust.test.ts'],
      named: 'who cannot renew has stopped when another may begin',
    },
  },
  {
    name: 'lease: a tick of a job runs once (cron_run)',
    file: 'packages/lease/migrations/0001-lease.sql',
    find: 'primary key (job, scheduled_for)',
    replace: "check (job <> '')",
    tests: tested('trap 20: a tick runs once however many ask'),
  },
  {
    name: 'executor: it lives as long as its advisory lock',
    file: EXECUTOR,
    find: '`select pg_try_advisory_lock(hashtextextended($1, ${KEY_SEED})) as held`',
    replace: "`select $1::text <> '' as held`",
    tests: executorTested('an executor is alive while it holds its identity'),
  },
  {
    name: 'executor: a lock in another database is not its',
    file: EXECUTOR,
    find: '\n      and l.database = (select d.oid from pg_database d where d.datname = current_database())',
    replace: '',
    tests: executorTested('an executor of another database is not alive here'),
  },
  {
    name: 'executor: its identity goes with its connection',
    file: EXECUTOR,
    find: 'if (identity === held) identity = null',
    replace: '',
    tests: {
      files: ['packages/db/src/lost-identity.test.ts'],
      named: 'from the moment at which its connection is lost',
    },
  },
]
