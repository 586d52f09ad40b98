-- Opt-in, for clusters in which Node.js servers write plain rows: INSERTs that
-- know nothing of what Starling added to the tables. Nothing here is installed by
-- `starling migrate`; `starling adopt` installs it, or an operator does:
--
--   psql "$DATABASE_URL" --single-transaction -f db/compat/install.sql
--
-- May be run again. `remove.sql` takes all of it away, once no such server is left.
--
-- What it does not do: receipts are the peer's business. Who stores a message
-- without Starling also inserts its row into message_receipts for each recipient,
-- and marks them delivered and read; the watermarks of room_members move on when
-- the user next reads on Starling. A row that a peer DELETEs from messages leaves
-- a gap in the room's seq: Starling empties deleted messages and keeps their place.
--
-- Locks: an INSERT without seq holds its room's row until its transaction ends, as
-- Starling's own inserts do. So keep such transactions short, and let one that
-- writes to several rooms do so in the order of their ids, as Starling does: two
-- that take the same rooms in different orders wait for each other, and PostgreSQL
-- ends one of them.

-- Waits less for its locks than the second after which PostgreSQL ends one of two
-- transactions that wait for each other: on a busy database it may fail with a
-- timeout, having changed nothing. Then run it again.
SET LOCAL lock_timeout = '400ms';
SET LOCAL statement_timeout = '600ms';
LOCK TABLE users, rooms, room_members, messages IN SHARE ROW EXCLUSIVE MODE;
SET LOCAL statement_timeout = 0;

-- The functions find the tables where they are now, whatever search_path says later.

-- The next seq of the room, counted under the lock of the room's row and in the
-- sender's transaction: no gap, no repeat, in commit order; and created_at never
-- runs against it.
CREATE OR REPLACE FUNCTION starling_number_message() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    head record;
    taken boolean;
BEGIN
    NEW.created_at := coalesce(NEW.created_at, now());
    NEW.message_type := coalesce(NEW.message_type, 'text');
    NEW.metadata := coalesce(NEW.metadata, '{}');

    SELECT r.last_seq, r.last_activity_at INTO head
    FROM rooms r
    WHERE r.id = NEW.room_id
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE foreign_key_violation
            USING MESSAGE = format('room %s does not exist', NEW.room_id), TABLE = 'messages';
    END IF;

    -- While `starling adopt` numbers the room's older messages: this one is
    -- numbered after them. Never so once adoption is complete.
    IF head.last_seq IS NULL THEN
        RETURN NEW;
    END IF;

    IF coalesce(NEW.recipients, 0) = 0 THEN
        SELECT count(*) INTO NEW.recipients
        FROM room_members rm
        WHERE rm.room_id = NEW.room_id
          AND rm.user_id <> NEW.sender_id
          AND rm.left_at IS NULL;
    END IF;
    NEW.created_at := greatest(NEW.created_at, head.last_activity_at);
    NEW.seq := head.last_seq + 1;

    -- A row that is there already, or this client id: ON CONFLICT will turn the
    -- insert away after this trigger, so it must not use up a number. The lock on
    -- the row found keeps it there until then.
    PERFORM FROM messages m WHERE m.id = NEW.id FOR KEY SHARE;
    taken := FOUND;
    IF NOT taken AND NEW.client_id IS NOT NULL THEN
        PERFORM FROM messages m
        WHERE m.sender_id = NEW.sender_id
          AND m.client_id = NEW.client_id
        FOR KEY SHARE;
        taken := FOUND;
    END IF;
    IF NOT taken THEN
        UPDATE rooms r
        SET last_seq = NEW.seq,
            last_activity_at = NEW.created_at
        WHERE r.id = NEW.room_id;
    END IF;
    RETURN NEW;
END
$$;

-- Activity begins with the room.
CREATE OR REPLACE FUNCTION starling_complete_room() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.created_at := coalesce(NEW.created_at, now());
    NEW.last_activity_at := coalesce(NEW.last_activity_at, NEW.created_at);
    RETURN NEW;
END
$$;

-- To one who joins, nothing sent before is unread.
CREATE OR REPLACE FUNCTION starling_complete_member() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    NEW.role := coalesce(NEW.role, 'member');
    NEW.joined_at := coalesce(NEW.joined_at, now());
    SELECT r.last_seq INTO NEW.joined_seq
    FROM rooms r
    WHERE r.id = NEW.room_id
    FOR NO KEY UPDATE;
    NEW.last_delivered_seq := NEW.joined_seq;
    NEW.last_read_seq := NEW.joined_seq;
    RETURN NEW;
END
$$;

-- A direct room is known by its two users as soon as both are in it, so that
-- Starling finds it instead of making a second one.
CREATE OR REPLACE FUNCTION starling_pair_direct_room() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    low integer;
    high integer;
    people bigint;
BEGIN
    PERFORM FROM rooms r
    WHERE r.id = NEW.room_id
      AND r.room_type = 'direct'
      AND r.direct_low IS NULL
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT min(rm.user_id), max(rm.user_id), count(DISTINCT rm.user_id)
    INTO low, high, people
    FROM room_members rm
    WHERE rm.room_id = NEW.room_id;
    -- The two may have one already: then this one stays without.
    IF people = 2 AND NOT EXISTS (
        SELECT FROM rooms r WHERE r.direct_low = low AND r.direct_high = high
    ) THEN
        BEGIN
            UPDATE rooms r SET direct_low = low, direct_high = high WHERE r.id = NEW.room_id;
        EXCEPTION WHEN unique_violation THEN
            -- Made by another at the same moment.
            NULL;
        END;
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION starling_complete_user() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.created_at := coalesce(NEW.created_at, now());
    NEW.display_name := coalesce(NEW.display_name, NEW.username);
    RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER starling_complete_user
    BEFORE INSERT OR UPDATE OF display_name, created_at ON users
    FOR EACH ROW WHEN (NEW.display_name IS NULL OR NEW.created_at IS NULL)
    EXECUTE FUNCTION starling_complete_user();

CREATE OR REPLACE TRIGGER starling_complete_room
    BEFORE INSERT ON rooms
    FOR EACH ROW WHEN (NEW.last_activity_at IS NULL)
    EXECUTE FUNCTION starling_complete_room();

CREATE OR REPLACE TRIGGER starling_complete_member
    BEFORE INSERT ON room_members
    FOR EACH ROW WHEN (NEW.joined_seq IS NULL)
    EXECUTE FUNCTION starling_complete_member();

CREATE OR REPLACE TRIGGER starling_pair_direct_room
    AFTER INSERT ON room_members
    FOR EACH ROW
    EXECUTE FUNCTION starling_pair_direct_room();

-- Starling's own inserts bring their seq and pay a comparison only.
CREATE OR REPLACE TRIGGER starling_number_message
    BEFORE INSERT ON messages
    FOR EACH ROW WHEN (NEW.seq IS NULL)
    EXECUTE FUNCTION starling_number_message();
