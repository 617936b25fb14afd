-- A claim writes claimed_by and nothing else, and no index knows that column: so the update stays on its page (HOT) and
-- touches no index, where it used to touch three. Half of each page is kept free for it.
drop index bus_delivery_ready;
drop index bus_delivery_claimed;
-- Unique, so that the planner takes no other index for it.
create unique index bus_delivery_position on bus_delivery (queue, position);
alter table bus_delivery set (fillfactor = 50);

-- Takes out what a consumer is done with and claims up to `most` deliveries of the queue, in one round trip. Claimed may
-- be what is due and not behind an earlier delivery of its aggregate that waits for its retry or is in another consumer's
-- hands. The lock makes claims of one queue follow each other, each with a fresh snapshot: two at once could take n and
-- n+1 of one aggregate apart. Only an executor that is known as a consumer may claim: what others have in hand could
-- never be found again.
-- Deliveries whose consumers died with them in hand, three times and more, are claimed one at a time: whoever kills is
-- found, and those that were in hand beside it are not buried with it.
-- The statistics of a queue are always those of another hour, so the planner is told what to use.
create function settle_and_claim(of_queue text, executor text, done bigint[], most integer)
returns table ("position" bigint, event_id uuid, aggregate text, envelope text, failures integer, abandoned integer)
language plpgsql
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set enable_material = off
as $$
#variable_conflict use_column
begin
  if cardinality(done) > 0 then
    delete from bus_delivery d using unnest(done) as gone (position)
    where d.queue = of_queue and d.position = gone.position and d.claimed_by = settle_and_claim.executor;
  end if;
  if most <= 0 then return; end if;
  perform pg_advisory_xact_lock(hashtextextended('cloudphone.bus.claim.' || of_queue, 0));
  if not exists (select from bus_consumer c where c.executor = settle_and_claim.executor) then return; end if;
  return query
    with candidate as materialized (
      select d.position, d.abandoned from bus_delivery d
      where d.queue = of_queue and d.claimed_by is null and d.due_at <= app_now()
        and not exists (
          select from bus_delivery earlier
          where earlier.queue = d.queue and earlier.aggregate = d.aggregate and earlier.position < d.position
            and (earlier.due_at > app_now() or earlier.claimed_by <> settle_and_claim.executor)
        )
      order by d.position limit most
    ), chosen as materialized (
      select c.position from candidate c order by c.position
      limit case when (select f.abandoned from candidate f order by f.position limit 1) >= 3 then 1 else most end
    ), claimed as (
      update bus_delivery d set claimed_by = settle_and_claim.executor from chosen c
      where d.queue = of_queue and d.position = c.position and d.claimed_by is null
      returning d.position, d.event_id, d.aggregate, d.envelope::text as envelope, d.failures, d.abandoned
    )
    select c.position, c.event_id, c.aggregate, c.envelope, c.failures, c.abandoned from claimed c order by c.position;
end $$;
