-- Wrong attempts, by account (known or not) and by address: counted for all instances, and over restarts.
create table sign_in_failures (
  -- `account:` and a hash of the e-mail, or `address:` and the network.
  subject text primary key,
  failures integer not null check (failures > 0),
  last_at timestamptz not null,
  -- Until when nothing is tried for it.
  locked_until timestamptz
);

create index idx_sign_in_failures_last on sign_in_failures (last_at);
