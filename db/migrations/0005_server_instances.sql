-- Which instances live: each renews its lease every few seconds, by the clock of the
-- database. The sockets of one whose lease ran out (user_sessions) are swept by the
-- others. Instances of other programs have no row here; theirs go by last_heartbeat.

CREATE TABLE server_instances (
    -- One instance renews: WHERE instance = $1.
    instance    text PRIMARY KEY,
    alive_until timestamptz NOT NULL,
    CONSTRAINT server_instances_length CHECK (char_length(instance) BETWEEN 1 AND 255)
) WITH (fillfactor = 50);
