-- Takes away what install.sql made. Run it when the last server that inserts
-- plain rows is gone: from then on, such an INSERT fails for want of a seq.
--
--   psql "$DATABASE_URL" --single-transaction -f db/compat/remove.sql
--
-- On a database that was adopted, `starling adopt --finish` does this, and adds
-- the limits that Node.js servers might not have kept.
-- Waits less for its locks than the second after which PostgreSQL ends one of two
-- transactions that wait for each other: on a busy database it may fail with a
-- timeout, having changed nothing. Then run it again.
SET LOCAL lock_timeout = '400ms';
SET LOCAL statement_timeout = '600ms';
LOCK TABLE users, rooms, room_members, messages IN ACCESS EXCLUSIVE MODE;
SET LOCAL statement_timeout = 0;

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
