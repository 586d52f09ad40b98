-- What did not arrive at a user yet, of one meaning in all queries.

-- Messages without receipt rows, undelivered ones of a user: WHERE room_id = $1 AND
-- seq > $2 AND NOT receipt_rows. Delivered messages with rows don't move
-- last_delivered_seq, so without this index each connect would read again what the user
-- got in small rooms since the last read mark. Sends to small rooms don't touch it.
-- It locks the table against writes while it is made. On a large one make it before, by
-- hand and CONCURRENTLY.
CREATE INDEX IF NOT EXISTS messages_without_rows_idx ON messages (room_id, seq) WHERE NOT receipt_rows;

-- Functions and triggers:
-- `starling adopt` runs what follows as it stands.

-- The planner puts it into the query as if it stood there: it must stay one SELECT,
-- STABLE, without SECURITY DEFINER and without SET. In whole milliseconds, as cursors
-- hold them, also for rows that another program wrote.
CREATE FUNCTION undelivered_messages(who integer)
RETURNS TABLE (id uuid, room_id integer, seq bigint, at timestamptz)
LANGUAGE sql STABLE
AS $$
    SELECT m.id, m.room_id, m.seq, date_trunc('milliseconds', m.created_at)
    FROM message_receipts r
    JOIN messages m ON m.id = r.message_id
    JOIN room_members rm
      ON rm.room_id = m.room_id
     AND rm.user_id = r.user_id
     AND rm.left_at IS NULL
    WHERE r.user_id = who
      AND r.delivered_at IS NULL
    UNION ALL
    SELECT m.id, m.room_id, m.seq, date_trunc('milliseconds', m.created_at)
    FROM room_members rm
    JOIN messages m
      ON m.room_id = rm.room_id
     AND m.seq > rm.last_delivered_seq
     AND m.sender_id <> rm.user_id
     AND NOT m.receipt_rows
    WHERE rm.user_id = who
      AND rm.left_at IS NULL
$$;
