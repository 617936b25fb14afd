-- The clock of every deadline kept in SQL. A function of its own, so that a test can move it:
-- the test template replaces it by now() plus an offset. Audit columns may use bare now().
create function app_now() returns timestamptz
  language sql stable parallel safe
  as 'select now()';
