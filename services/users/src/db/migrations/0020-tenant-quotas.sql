-- Sessions: pooled phones in use at a time. A reservation takes a phone of one's own or a session, or neither.
alter table quotas
  add column max_sessions integer check (max_sessions >= 0),
  add column sessions integer not null default 0 check (sessions >= 0),
  -- Limits whose refusal was told in an event since something was last given back: nobody is told twice.
  add column told text[] not null default '{}';
alter table quotas set (fillfactor = 80);

alter table quota_reservations
  add column devices integer not null default 1 check (devices between 0 and 1),
  add column sessions integer not null default 0 check (sessions between 0 and 1);
alter table quota_reservations set (fillfactor = 80);

-- The same for all users of a tenant together.
create table tenant_quotas (
  tenant_id uuid primary key references tenants (id),
  -- Null: the default of the settings holds.
  max_devices integer check (max_devices >= 0),
  max_cpu integer check (max_cpu >= 0),
  max_memory integer check (max_memory >= 0),
  max_storage integer check (max_storage >= 0),
  max_sessions integer check (max_sessions >= 0),
  -- What live reservations of the tenant's users add up to.
  devices integer not null default 0 check (devices >= 0),
  cpu bigint not null default 0 check (cpu >= 0),
  memory bigint not null default 0 check (memory >= 0),
  storage bigint not null default 0 check (storage >= 0),
  sessions integer not null default 0 check (sessions >= 0),
  told text[] not null default '{}',
  -- The aggregate's version: +1 per event about this tenant's quota.
  version integer not null default 0 check (version >= 0),
  updated_at timestamptz not null default now()
) with (fillfactor = 80);

insert into tenant_quotas (tenant_id, devices, cpu, memory, storage)
select tenants.id, count(held.reservation_id), coalesce(sum(held.cpu), 0), coalesce(sum(held.memory), 0),
       coalesce(sum(held.storage), 0)
from tenants
left join users on users.tenant_id = tenants.id
left join quota_reservations held on held.user_id = users.id and held.state <> 'released'
group by tenants.id;
