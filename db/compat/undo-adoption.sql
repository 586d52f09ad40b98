-- The way back from `starling adopt`, before `starling adopt --finish`: takes away
-- what it added. Stop every Starling first; Node.js servers may go on writing.
--
--   psql "$DATABASE_URL" --single-transaction -f db/compat/undo-adoption.sql
--
-- In one transaction, since an INSERT fails between the end of the triggers and the
-- end of the column seq. Quick, whatever the size of the tables: space of the
-- columns comes back as rows are rewritten. What does no harm stays: indexes by
-- their new names, text for varchar(n), receipts marked as delivered.
-- Logins, reactions, edits' times and client ids that Starling stored are lost.
-- Waits less for its locks than the second after which PostgreSQL ends one of two
-- transactions that wait for each other: on a busy database it may fail with a
-- timeout, having changed nothing. Then run it again.
SET LOCAL lock_timeout = '400ms';
SET LOCAL statement_timeout = '600ms';
LOCK TABLE users, rooms, room_members, messages IN ACCESS EXCLUSIVE MODE;
SET LOCAL statement_timeout = 0;

-- Servers that were there before may write NULL here.
ALTER TABLE users ALTER COLUMN display_name DROP NOT NULL;
ALTER TABLE room_members ALTER COLUMN role DROP NOT NULL, ALTER COLUMN joined_at DROP NOT NULL;
ALTER TABLE messages ALTER COLUMN message_type DROP NOT NULL, ALTER COLUMN metadata DROP NOT NULL;

-- As remove.sql.
DROP TRIGGER IF EXISTS starling_number_message ON messages;
DROP TRIGGER IF EXISTS starling_pair_direct_room ON room_members;
DROP TRIGGER IF EXISTS starling_complete_member ON room_members;
DROP TRIGGER IF EXISTS starling_complete_room ON rooms;
DROP TRIGGER IF EXISTS starling_complete_user ON users;
DROP FUNCTION IF EXISTS starling_number_message();
DROP FUNCTION IF EXISTS starling_pair_direct_room();
DROP FUNCTION IF EXISTS starling_complete_member();
DROP FUNCTION IF EXISTS starling_complete_room();
DROP FUNCTION IF EXISTS starling_complete_user();

DROP TRIGGER IF EXISTS messages_changed ON messages;
DROP FUNCTION IF EXISTS message_changed();
-- Its trigger goes along with the table reactions.
DROP FUNCTION IF EXISTS reaction_changed() CASCADE;
DROP FUNCTION IF EXISTS room_changed(integer);
DROP FUNCTION IF EXISTS undelivered_messages(integer);

-- Their indexes and constraints go along.
ALTER TABLE messages
    DROP COLUMN IF EXISTS seq,
    DROP COLUMN IF EXISTS edited_at,
    DROP COLUMN IF EXISTS deleted_at,
    DROP COLUMN IF EXISTS client_id,
    DROP COLUMN IF EXISTS reply_to,
    DROP COLUMN IF EXISTS recipients,
    DROP COLUMN IF EXISTS receipt_rows;
ALTER TABLE room_members
    DROP COLUMN IF EXISTS joined_seq,
    DROP COLUMN IF EXISTS last_delivered_seq,
    DROP COLUMN IF EXISTS last_read_seq;
ALTER TABLE rooms
    DROP COLUMN IF EXISTS last_seq,
    DROP COLUMN IF EXISTS last_activity_at,
    DROP COLUMN IF EXISTS direct_low,
    DROP COLUMN IF EXISTS direct_high;
DROP TABLE IF EXISTS refresh_tokens, login_sessions, reactions, room_changes, server_instances, _sqlx_migrations, starling_adoption_rooms;
