-- Messages and what hangs on them. No triggers here: an insert costs what it says.

CREATE TABLE messages (
    -- UUID v7, made by the server: new rows go to the right end of the index.
    id           uuid PRIMARY KEY,
    room_id      integer NOT NULL REFERENCES rooms (id),
    -- No foreign key: the sender's membership, which has one, is checked under
    -- the room's lock in the transaction that stores the message.
    sender_id    integer NOT NULL,
    seq          bigint NOT NULL,
    content      text NOT NULL,
    message_type text NOT NULL DEFAULT 'text',
    created_at   timestamptz NOT NULL,
    edited_at    timestamptz,
    deleted_at   timestamptz,
    client_id    uuid,
    reply_to     uuid,
    metadata     jsonb NOT NULL DEFAULT '{}',
    -- Members other than the sender when it was sent.
    recipients   integer NOT NULL DEFAULT 0,
    -- Whether message_receipts has a row for each of them.
    receipt_rows boolean NOT NULL DEFAULT true,
    CONSTRAINT messages_seq_positive CHECK (seq >= 1),
    CONSTRAINT messages_content_length CHECK (char_length(content) <= 4000),
    CONSTRAINT messages_type CHECK (message_type IN ('text', 'image', 'file', 'system')),
    CONSTRAINT messages_metadata_object CHECK (jsonb_typeof(metadata) = 'object'),
    CONSTRAINT messages_deleted_empty CHECK (deleted_at IS NULL OR (content = '' AND metadata = '{}')),
    CONSTRAINT messages_recipients_positive CHECK (recipients >= 0),
    -- History, sync, unread counts: WHERE room_id = $1 AND seq > $2 ORDER BY seq.
    -- Unique: the last guard of the gapless order.
    CONSTRAINT messages_room_seq_key UNIQUE (room_id, seq)
);

-- A repeated send: WHERE sender_id = $1 AND client_id = $2.
CREATE UNIQUE INDEX messages_client_id_key ON messages (sender_id, client_id) WHERE client_id IS NOT NULL;

-- A room by time (exports, support): WHERE room_id = $1 ORDER BY created_at DESC.
CREATE INDEX messages_room_created_idx ON messages (room_id, created_at DESC);

-- All rooms by time (retention, statistics): WHERE created_at < $1. Rows arrive in
-- this order, so a few pages of BRIN are enough.
CREATE INDEX messages_created_brin ON messages USING brin (created_at);

-- Messages by what clients attached: WHERE metadata @> '{"fileId": "…"}'.
CREATE INDEX messages_metadata_idx ON messages USING gin (metadata jsonb_path_ops);

-- Word search: WHERE to_tsvector('simple', content) @@ plainto_tsquery('simple', $1)
-- AND deleted_at IS NULL.
CREATE INDEX messages_search_idx ON messages USING gin (to_tsvector('simple', content)) WHERE deleted_at IS NULL;

-- One row for each recipient of a message in a room of up to
-- RECEIPT_ROWS_MAX_MEMBERS members; larger rooms use the watermarks of room_members.
-- The largest table, so without foreign keys: rows are made from messages and
-- members in one statement, and neither is ever deleted alone.
CREATE TABLE message_receipts (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id   uuid NOT NULL,
    user_id      integer NOT NULL,
    delivered_at timestamptz,
    read_at      timestamptz,
    -- Counts of a message: WHERE message_id = ANY($1); one's own row: AND user_id = $2.
    CONSTRAINT message_receipts_key UNIQUE (message_id, user_id)
) WITH (fillfactor = 80);

-- Offline delivery: WHERE user_id = $1 AND delivered_at IS NULL.
CREATE INDEX message_receipts_undelivered_idx ON message_receipts (user_id) WHERE delivered_at IS NULL;

-- Emoji on messages: WHERE message_id = ANY($1). Written under the lock of the
-- message's row, hence without a foreign key.
CREATE TABLE reactions (
    message_id uuid NOT NULL,
    user_id    integer NOT NULL,
    emoji      text NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT reactions_emoji_length CHECK (char_length(emoji) BETWEEN 1 AND 32),
    -- Adding twice does nothing: ON CONFLICT DO NOTHING.
    CONSTRAINT reactions_key PRIMARY KEY (message_id, emoji, user_id)
);
