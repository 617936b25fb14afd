alter table users drop constraint users_status_check;
alter table users add constraint users_status_check check (status in ('active', 'suspended', 'deleted'));
alter table users add column suspend_reason text;
alter table users add constraint users_suspend_reason_check check (suspend_reason is null or status = 'suspended');
-- A deleted account keeps its id, for what refers to it, and nothing else of its person.
alter table users add constraint users_deleted_check
  check (status <> 'deleted' or (email = 'deleted-' || id || '@deleted.invalid' and password_hash = '!'));

alter table tenants add column status text not null default 'active' check (status in ('active', 'suspended'));
-- Nobody can lock out those who could let them in again.
alter table tenants add constraint tenants_platform_active_check check (not is_platform or status = 'active');
