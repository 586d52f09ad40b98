-- Makes message_receipts a table of months. Run once, with the servers stopped:
--
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f partition-receipts.sql
--
-- What is there becomes the first partition, in place: it is read once, to see that its ids
-- lie below the boundary, and not copied. Run SELECT starling_receipts_partitions(3) each
-- month, while servers write; what no month has been made for goes to a partition of its
-- own, and is moved when its month is made.
--
-- Vacuum and indexes then work on one month at a time. Don't drop old months yet: the
-- counts of delivered and read are counted from these rows.
--
-- Message ids that do not grow with time (a database that came from a Node.js backend with
-- random UUIDs) can't be told apart by month: the script says so and changes nothing.
BEGIN;

CREATE FUNCTION starling_uuid_at(moment timestamptz) RETURNS uuid
LANGUAGE sql STABLE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;
COMMENT ON FUNCTION starling_uuid_at IS 'No UUID v7 of this moment or later is smaller.';

LOCK TABLE message_receipts IN ACCESS EXCLUSIVE MODE;

DO $$
DECLARE
    boundary uuid := starling_uuid_at(date_trunc('month', now()) + interval '1 month');
BEGIN
    IF EXISTS (SELECT FROM message_receipts WHERE message_id >= boundary) THEN
        RAISE EXCEPTION 'message_receipts has ids that do not grow with time, and can''t be partitioned by them';
    END IF;
END $$;

ALTER TABLE message_receipts RENAME TO message_receipts_before;
ALTER TABLE message_receipts_before RENAME CONSTRAINT message_receipts_key TO message_receipts_before_key;
ALTER TABLE message_receipts_before RENAME CONSTRAINT message_receipts_pkey TO message_receipts_before_pkey;
ALTER INDEX message_receipts_undelivered_idx RENAME TO message_receipts_before_undelivered_idx;

-- A partitioned table has no identity before PostgreSQL 17: a sequence does the same.
ALTER TABLE message_receipts_before ALTER COLUMN id DROP IDENTITY;
CREATE SEQUENCE message_receipts_numbers;
SELECT setval('message_receipts_numbers', coalesce(max(id), 0) + 1, false) FROM message_receipts_before;

CREATE TABLE message_receipts (
    id           bigint NOT NULL DEFAULT nextval('message_receipts_numbers'),
    message_id   uuid NOT NULL,
    user_id      integer NOT NULL,
    delivered_at timestamptz,
    read_at      timestamptz,
    CONSTRAINT message_receipts_key UNIQUE (message_id, user_id)
) PARTITION BY RANGE (message_id);
ALTER SEQUENCE message_receipts_numbers OWNED BY message_receipts.id;
CREATE INDEX message_receipts_undelivered_idx ON message_receipts (user_id) WHERE delivered_at IS NULL;

DO $$
BEGIN
    EXECUTE format(
        'ALTER TABLE message_receipts ATTACH PARTITION message_receipts_before FOR VALUES FROM (MINVALUE) TO (%L)',
        starling_uuid_at(date_trunc('month', now()) + interval '1 month'));
END $$;
CREATE TABLE message_receipts_other PARTITION OF message_receipts DEFAULT WITH (fillfactor = 80);

CREATE FUNCTION starling_receipts_partitions(ahead integer) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
    month timestamptz;
    name text;
    low uuid;
    high uuid;
BEGIN
    FOR month IN
        SELECT generate_series(date_trunc('month', now()), date_trunc('month', now()) + make_interval(months => ahead), '1 month')
    LOOP
        name := 'message_receipts_' || to_char(month, 'YYYY_MM');
        low := starling_uuid_at(month);
        high := starling_uuid_at(month + interval '1 month');
        -- There already, or a part of what was there before.
        CONTINUE WHEN to_regclass(name) IS NOT NULL
            OR low < (SELECT (regexp_match(pg_get_expr(relpartbound, oid), 'TO \(''([0-9a-f-]+)''\)'))[1]::uuid
                      FROM pg_class WHERE oid = to_regclass('message_receipts_before'));
        EXECUTE format('CREATE TABLE %I (LIKE message_receipts INCLUDING DEFAULTS) WITH (fillfactor = 80)', name);
        EXECUTE format(
            'WITH moved AS (DELETE FROM message_receipts_other WHERE message_id >= %L AND message_id < %L RETURNING *)
             INSERT INTO %I SELECT * FROM moved', low, high, name);
        EXECUTE format('ALTER TABLE message_receipts ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, low, high);
        RETURN NEXT name;
    END LOOP;
END $$;
COMMENT ON FUNCTION starling_receipts_partitions IS 'Makes the partitions of this month and of so many after it that are not there yet.';

SELECT starling_receipts_partitions(12);
COMMIT;
