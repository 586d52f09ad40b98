// The database of a Node.js chat backend of the same design, and its servers' way of writing to it.

import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { sleep } from './wait.mjs';

/** The six tables as such backends make them; nothing of Starling's is in them. */
export const SCHEMA = `
  CREATE TABLE users (
    id SERIAL PRIMARY KEY,
    username VARCHAR(50) NOT NULL UNIQUE,
    email VARCHAR(255) NOT NULL UNIQUE,
    password_hash VARCHAR(255) NOT NULL,
    display_name VARCHAR(100),
    avatar_url VARCHAR(500),
    last_seen TIMESTAMPTZ,
    created_at TIMESTAMPTZ DEFAULT NOW()
  );
  CREATE TABLE rooms (
    id SERIAL PRIMARY KEY,
    name VARCHAR(100),
    room_type VARCHAR(20) NOT NULL DEFAULT 'group' CHECK (room_type IN ('direct', 'group')),
    created_by INTEGER REFERENCES users(id),
    created_at TIMESTAMPTZ DEFAULT NOW()
  );
  CREATE TABLE room_members (
    id SERIAL PRIMARY KEY,
    room_id INTEGER NOT NULL REFERENCES rooms(id) ON DELETE CASCADE,
    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    role VARCHAR(20) DEFAULT 'member' CHECK (role IN ('admin', 'member')),
    joined_at TIMESTAMPTZ DEFAULT NOW(),
    left_at TIMESTAMPTZ,
    UNIQUE (room_id, user_id)
  );
  CREATE TABLE messages (
    id UUID PRIMARY KEY,
    room_id INTEGER NOT NULL REFERENCES rooms(id) ON DELETE CASCADE,
    sender_id INTEGER NOT NULL REFERENCES users(id),
    content TEXT NOT NULL,
    message_type VARCHAR(20) DEFAULT 'text',
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    metadata JSONB
  );
  CREATE TABLE message_receipts (
    id BIGSERIAL PRIMARY KEY,
    message_id UUID NOT NULL REFERENCES messages(id) ON DELETE CASCADE,
    user_id INTEGER NOT NULL REFERENCES users(id),
    delivered_at TIMESTAMPTZ,
    read_at TIMESTAMPTZ,
    UNIQUE (message_id, user_id)
  );
  CREATE TABLE user_sessions (
    id SERIAL PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users(id),
    socket_id VARCHAR(255) NOT NULL UNIQUE,
    server_instance VARCHAR(100) NOT NULL,
    connected_at TIMESTAMPTZ DEFAULT NOW(),
    last_heartbeat TIMESTAMPTZ DEFAULT NOW()
  );`;

export const INDEXES = `
  CREATE INDEX idx_messages_room_created ON messages (room_id, created_at DESC);
  CREATE INDEX idx_messages_created ON messages USING brin (created_at);
  CREATE INDEX idx_messages_metadata ON messages USING gin (metadata);
  CREATE INDEX idx_receipts_undelivered ON message_receipts (user_id) WHERE delivered_at IS NULL;
  CREATE INDEX idx_members_active ON room_members (room_id) WHERE left_at IS NULL;`;

/** `old password`, as bcrypt of cost 4 and of three libraries hashes it. */
export const OLD_PASSWORD = 'old password';
export const HASH = '04$oXSIEoxoAK9Y5QaNICPfOO3U1y0IfaPAL.rTYmVy0ZTo0.49CeQ9.';

/**
 * 60 users, rooms of five (every tenth a direct one), messages over a year: a quarter of them in room 1, some at
 * the very same moment, not in the order of their ids; receipts for every tenth message.
 */
export async function fill(db, { rooms, messages }) {
  await db.query(SCHEMA);
  await db.query(`
    INSERT INTO users (username, email, password_hash, display_name)
    SELECT 'User' || i, 'user' || i || '@example.test',
      (ARRAY['$2a$', '$2b$', '$2y$'])[1 + i % 3] || $1, CASE WHEN i % 7 > 0 THEN 'User ' || i END
    FROM generate_series(1, 60) i`, [HASH]);
  await db.query(`
    INSERT INTO rooms (name, room_type, created_by, created_at)
    SELECT CASE WHEN i % 10 > 0 THEN 'Room ' || i END, CASE WHEN i % 10 > 0 THEN 'group' ELSE 'direct' END,
      1 + i % 60, '2025-01-01'
    FROM generate_series(1, $1) i`, [rooms]);
  // Pairs of direct rooms differ: the second user is as far away as the first one's round.
  await db.query(`
    INSERT INTO room_members (room_id, user_id, role, joined_at)
    SELECT r.id, 1 + (r.id + k * (1 + r.id / 60)) % 60, CASE WHEN k = 0 THEN 'admin' END,
      CASE WHEN k = 4 THEN '2025-06-01' ELSE r.created_at END
    FROM rooms r, generate_series(0, 4) k
    WHERE k < 2 OR r.room_type = 'group'`);
  await db.query(`
    INSERT INTO messages (id, room_id, sender_id, content, message_type, created_at, metadata)
    SELECT gen_random_uuid(), r.id, 1 + (r.id + (i % 2) * (1 + r.id / 60)) % 60, 'message ' || i,
      CASE WHEN i % 3 > 0 THEN 'text' END,
      '2025-01-01'::timestamptz + (i * 7919 % $2 / 2) * interval '300 seconds',
      CASE WHEN i % 5 > 0 THEN '{"from": "node"}'::jsonb END
    FROM generate_series(1, $2) i
    JOIN rooms r ON r.id = CASE WHEN i % 4 = 0 THEN 1 ELSE 1 + i * 31 % $1 END`, [rooms, messages]);
  await db.query(INDEXES);
  await db.query(`
    INSERT INTO message_receipts (message_id, user_id, delivered_at, read_at)
    SELECT m.id, rm.user_id,
      CASE WHEN m.created_at < '2025-10-01' AND rm.user_id % 5 > 0 THEN m.created_at + interval '1 second' END,
      CASE WHEN m.created_at < '2025-09-01'::timestamptz + rm.user_id * interval '1 day' AND rm.user_id % 4 > 0
        THEN m.created_at + interval '1 minute' END
    FROM messages m
    JOIN room_members rm ON rm.room_id = m.room_id AND rm.user_id <> m.sender_id AND rm.joined_at <= m.created_at
    WHERE hashtext(m.content) % 10 = 0`);
  await db.query('ANALYZE');
}

/** Servers that write until `stop()`, which answers `{ids}` of all that was stored; a failure is thrown there. */
export function startWriters(connectionString, { connections, rooms }) {
  const pool = new pg.Pool({ connectionString, max: connections });
  const ids = [];
  let stopped = false;
  const kinds = [message, withReceipts, two, repeated, newRoom];
  const work = Array.from({ length: connections }, async (_, number) => {
    for (let round = 0; !stopped; round += 1) {
      // A new room now and then only.
      const kind = round % 40 === 39 ? newRoom : kinds[(round + number) % 4];
      const room = round % 3 === 0 ? 1 : 1 + (round * 17 + number * 41) % rooms;
      ids.push(...await kind(pool, room));
      await sleep(5);
    }
  });
  return {
    get count() { return ids.length; },
    async stop() {
      stopped = true;
      const outcomes = await Promise.allSettled(work);
      await pool.end();
      const failed = outcomes.find((outcome) => outcome.status === 'rejected');
      if (failed) throw failed.reason;
      return { ids };
    },
  };
}

const INSERT = `INSERT INTO messages (id, room_id, sender_id, content, message_type, metadata)
  VALUES ($1, $2, (SELECT min(user_id) FROM room_members WHERE room_id = $2), $3, $4, $5) RETURNING *`;

async function message(db, room) {
  const id = randomUUID();
  const { rows: [row] } = await db.query(INSERT, [id, room, 'written meanwhile', null, null]);
  if (row.id !== id || row.content !== 'written meanwhile') throw new Error(`stored ${JSON.stringify(row)}`);
  return [id];
}

async function transaction(pool, work) {
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    const answer = await work(client);
    await client.query('COMMIT');
    return answer;
  } finally {
    client.release();
  }
}

const withReceipts = (pool, room) => transaction(pool, async (client) => {
  const id = randomUUID();
  await client.query(INSERT, [id, room, 'with receipts', 'text', { n: 1 }]);
  await client.query(`
    INSERT INTO message_receipts (message_id, user_id)
    SELECT m.id, rm.user_id FROM messages m
    JOIN room_members rm ON rm.room_id = m.room_id AND rm.user_id <> m.sender_id AND rm.left_at IS NULL
    WHERE m.id = $1`, [id]);
  return [id];
});

async function two(db, room) {
  const ids = [randomUUID(), randomUUID()];
  await db.query(`INSERT INTO messages (id, room_id, sender_id, content)
    SELECT u, $2, (SELECT min(user_id) FROM room_members WHERE room_id = $2), 'one of two' FROM unnest($1::uuid[]) u`, [ids, room]);
  return ids;
}

/** A message that is there already takes no number. */
async function repeated(db, room) {
  const [id] = await message(db, room);
  await db.query(`INSERT INTO messages (id, room_id, sender_id, content) VALUES ($1, $2, 1, 'again')
    ON CONFLICT (id) DO NOTHING`, [id, room]);
  return [id];
}

const newRoom = (pool) => transaction(pool, async (client) => {
  const { rows: [room] } = await client.query(
    "INSERT INTO rooms (name, room_type, created_by) VALUES ('New', 'group', 1) RETURNING id",
  );
  await client.query("INSERT INTO room_members (room_id, user_id, role) VALUES ($1, 1, 'admin'), ($1, 2, 'member')", [room.id]);
  return message(client, room.id);
});
