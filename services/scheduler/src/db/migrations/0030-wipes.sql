-- What was last heard of the wipe of a phone: under which fence its holder had left it, and whether it was proved. A phone is
-- `cleaning` until that is as new as its last release.
alter table device_mirror
  add column wiped_fence bigint not null default 0,
  add column wipe_failed boolean not null default false;
