-- When a room's messages last changed, other than by a new one: what a copy of
-- them outside the database is compared with. A change is an UPDATE or DELETE of
-- a message or any change of its reactions, whoever makes it and however, which
-- is why triggers note it. Sending a message fires none of them.

CREATE TABLE room_changes (
    room_id integer PRIMARY KEY,
    -- New and random with each transaction that changes something: no version
    -- comes twice, not even after a backup was put back. Without a row: the nil UUID.
    version uuid NOT NULL
) WITH (fillfactor = 50);

-- Functions and triggers:
-- `starling adopt` runs what follows as it stands.

CREATE FUNCTION room_changed(room integer) RETURNS void
LANGUAGE sql
AS $$
    -- Once a transaction is enough: all of it becomes visible at once.
    INSERT INTO room_changes AS c (room_id, version)
    VALUES (room, gen_random_uuid())
    ON CONFLICT (room_id) DO UPDATE
    SET version = excluded.version
    WHERE c.xmin <> pg_current_xact_id()::xid;
$$;

-- Of the owner's rights: who may change messages need not know this table.
CREATE FUNCTION message_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM room_changed(OLD.room_id);
    IF TG_OP = 'UPDATE' AND NEW.room_id <> OLD.room_id THEN
        PERFORM room_changed(NEW.room_id);
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION reaction_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM room_changed(m.room_id) FROM messages m WHERE m.id = OLD.message_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM room_changed(m.room_id) FROM messages m WHERE m.id = NEW.message_id;
    END IF;
    RETURN NULL;
END
$$;

-- Deferred: the row of a busy room is locked from the commit on only, so changes of
-- different messages don't wait for each other.
CREATE CONSTRAINT TRIGGER messages_changed
AFTER UPDATE OR DELETE ON messages
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION message_changed();

CREATE CONSTRAINT TRIGGER reactions_changed
AFTER INSERT OR UPDATE OR DELETE ON reactions
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION reaction_changed();
