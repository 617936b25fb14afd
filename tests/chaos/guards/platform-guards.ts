// biome-ignore-all lint/suspicious/noTemplateCurlyInString: pieces of code, quoted as they stand in their files
import type { Guard } from './guard.ts'

const tested = (file: string, named: string): Guard['tests'] => ({ files: [`${file}.test.ts`], named })

/** Constraints of the services' tables on which an invariant of the platform rests. */
export const platformGuards: readonly Guard[] = [
  {
    name: 'devices: a port of a node is held by one phone',
    file: 'services/devices/src/db/migrations/0001-devices.sql',
    find: '  constraint port_allocations_adb unique (node_id, adb_port),\n',
    replace: '',
    tests: tested('services/devices/src/db/port-repo', '200 at once get 200 different ports'),
  },
  {
    name: 'devices: a phone takes room on one node, once',
    file: 'services/devices/src/db/migrations/0001-devices.sql',
    find: 'create table node_holdings (\n  device_id uuid primary key references',
    replace: 'create table node_holdings (\n  device_id uuid not null references',
    tests: tested('services/devices/src/db/guards', 'a phone takes room on a node once'),
  },
  {
    name: 'devices: an allocation holds one phone',
    file: 'services/devices/src/db/migrations/0001-devices.sql',
    find: 'create unique index idx_devices_allocation',
    replace: 'create index idx_devices_allocation',
    tests: tested('services/devices/src/db/guards', 'an allocation holds one phone'),
  },
  {
    name: 'devices: a thing at the provider belongs to one phone',
    file: 'services/devices/src/db/migrations/0001-devices.sql',
    find: 'external_id text unique,',
    replace: 'external_id text,',
    tests: tested('services/devices/src/db/guards', 'a thing at the provider belongs to one phone'),
  },
  {
    name: 'scheduler: a phone has one live allocation',
    file: 'services/scheduler/src/db/migrations/0001-allocations.sql',
    find: 'create unique index allocations_live_device',
    replace: 'create index allocations_live_device',
    tests: tested('services/scheduler/src/service', 'the database itself refuses a second live allocation'),
  },
  {
    name: 'scheduler: a request is one allocation',
    file: 'services/scheduler/src/db/migrations/0001-allocations.sql',
    find: 'constraint allocations_request_key unique check',
    replace: 'check',
    tests: tested(
      'services/scheduler/src/service',
      'a request that is tried again gets the first allocation',
    ),
  },
  {
    name: 'scheduler: the mirror of a phone refuses older versions',
    file: 'services/scheduler/src/db/phone-repo.ts',
    find: 'where known.version < excluded.version and not known.deleted',
    replace: '',
    tests: tested('services/scheduler/src/service', 'a stale event leaves the mirror alone'),
  },
  {
    name: 'users: a reservation of quota is made once',
    file: 'services/users/src/db/migrations/0002-quotas.sql',
    find: 'reservation_id uuid primary key,',
    replace: 'reservation_id uuid not null,',
    also: [
      {
        file: 'services/users/src/db/reservation-repo.ts',
        find: 'on conflict (reservation_id) do nothing\n      returning',
        replace: 'returning',
      },
      {
        file: 'services/users/src/db/reservation-repo.ts',
        find: 'on conflict (reservation_id) do nothing`',
        replace: '`',
      },
    ],
    tests: tested(
      'services/users/src/domain/quota-service',
      'what runs under one id at the same time is one reservation or a tombstone',
    ),
  },
  {
    name: 'users: quota of a user is taken only where it fits',
    file: 'services/users/src/db/reservation-repo.ts',
    find: 'and ${fits(defaults.user)}',
    replace: '',
    tests: tested('services/users/src/db/guards', 'a portion that does not fit is not taken'),
  },
  {
    name: 'users: quota of a tenant is taken only where it fits',
    file: 'services/users/src/db/reservation-repo.ts',
    find: ' and ${fits(defaults.tenant)}',
    replace: '',
    tests: tested('services/users/src/db/guards', 'a portion that does not fit is not taken'),
  },
  {
    name: 'users: what was released stays released',
    file: 'services/users/src/db/reservation-repo.ts',
    find: "and state <> 'released' and ${due}",
    replace: 'and ${due}',
    tests: tested('services/users/src/domain/quota-service', 'a release is for ever'),
  },
  {
    name: 'devices: a user has five unsettled phones',
    file: 'services/devices/src/db/migrations/0020-quota-grants.sql',
    find: ',\n  constraint quota_grants_five_each unique (user_id, slot)',
    replace: '',
    tests: tested('services/devices/src/db/guards', 'a user has five phones at most'),
  },
  {
    name: 'users: a session has one unused refresh token',
    file: 'services/users/src/db/migrations/0001-accounts.sql',
    find: 'create unique index refresh_tokens_live_key',
    replace: 'create index refresh_tokens_live_key',
    tests: tested('services/users/src/db/guards', 'a session has one unused refresh token'),
  },
  {
    name: 'billing: nobody pays twice for a moment of a phone',
    file: 'services/billing/src/db/migrations/0001-usage.sql',
    find: 'tstzrange(start_time, end_time) with &&',
    replace: "(tstzrange(start_time, end_time) * 'empty') with &&",
    tests: tested('services/billing/src/service', 'two records of one phone that share a moment'),
  },
  {
    name: 'billing: a cost is the price of its seconds',
    file: 'services/billing/src/db/migrations/0001-usage.sql',
    find: 'check (cost_micro = div(',
    replace: 'check (true or cost_micro = div(',
    tests: tested('services/billing/src/service', 'a cost that is not the price of the seconds'),
  },
  {
    name: 'billing: facts about one phone queue up',
    file: 'services/billing/src/db/usage-repo.ts',
    find: 'on conflict (device_id) do update set device_id = excluded.device_id',
    replace: 'on conflict (device_id) do nothing',
    tests: tested('services/billing/src/db/guards', 'facts about one phone queue up'),
  },
  {
    name: 'notifications: one notice per event and user',
    file: 'services/notifications/src/db/migrations/0001-notifications.sql',
    find: ',\n  unique (event_id, user_id)',
    replace: '',
    also: [
      {
        file: 'services/notifications/src/db/notification-repo.ts',
        find: 'on conflict (event_id, user_id) do nothing',
        replace: '',
      },
    ],
    tests: tested('services/notifications/src/db/guards', 'one notice per event and user'),
  },
  {
    name: 'apps: one live installation of an app under one right',
    file: 'services/apps/src/db/migrations/0001-apps.sql',
    find: 'create unique index installations_live_right',
    replace: 'create index installations_live_right',
    tests: tested('services/apps/src/service', 'asked for again while live are the first one'),
  },
  {
    name: 'apps: a request is one installation',
    file: 'services/apps/src/db/migrations/0001-apps.sql',
    find: ' constraint installations_request_key unique,',
    replace: ',',
    tests: tested('services/apps/src/db/guards', 'a request is one installation for ever'),
  },
  {
    name: 'http: a request under an Idempotency-Key is carried out once',
    file: 'packages/runtime/migrations/0001-idempotency.sql',
    find: ',\n  primary key (caller, route, key)',
    replace: '',
    also: [
      {
        file: 'packages/runtime/src/idempotency.ts',
        find: `on conflict (caller, route, key) do update
        set busy_until = excluded.busy_until
        where not k.answered and k.busy_until <= app_now() and k.body_hash = excluded.body_hash`,
        replace: '',
      },
    ],
    tests: tested('packages/runtime/src/idempotency', 'is carried out once and answered alike'),
  },
]
