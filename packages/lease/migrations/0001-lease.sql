-- Who may run which loop. Rows stay when a lease is given back: the epoch must never repeat.
create table lease (
  name text primary key,
  holder text,
  epoch bigint not null,
  expires_at timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_threshold = 200);

-- One row per tick of a job that was run: the unique key is what keeps two replicas from running the same one.
create table cron_run (
  job text not null,
  scheduled_for timestamptz not null,
  created_at timestamptz not null default now(),
  primary key (job, scheduled_for)
);
