// A living database moves in: `starling adopt`.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { api, connect, login } from '../support/client.mjs';
import { answered } from '../support/expect.mjs';
import { fill, HASH, OLD_PASSWORD, SCHEMA, startWriters } from '../support/node-backend.mjs';
import {
  createDatabase, run, spawnBinary, startServer,
} from '../support/server.mjs';
import { until } from '../support/wait.mjs';

const ROOMS = 300;
const MESSAGES = 200_000;

const adopt = (database, ...args) => run(['adopt', ...args], { DATABASE_URL: database.url }, 60_000);

/** Everything of the schema, as text. */
async function schemaOf(db) {
  const { rows } = await db.query(`
    SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '') AS line
    FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT tgrelid::regclass || ' ' || tgname FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_'
    ORDER BY 1`);
  return rows.map((row) => row.line);
}

/** A checksum of every row of the six tables. */
async function rowsOf(db, tables = ['users', 'rooms', 'room_members', 'messages', 'message_receipts', 'user_sessions']) {
  const sums = {};
  for (const table of tables) {
    const { rows: [{ sum }] } = await db.query(`SELECT count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) AS sum FROM ${table} t`);
    sums[table] = sum;
  }
  return sums;
}

async function value(db, sql, parameters) {
  const { rows: [row] } = await db.query(sql, parameters);
  return Object.values(row)[0];
}

/** Starts an adoption, kills it when its output or the database says so, and waits for its end. */
async function killWhen(database, condition) {
  const child = spawnBinary(['adopt'], { DATABASE_URL: database.url });
  const output = { text: '' };
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => { output.text += chunk; });
  const ended = once(child, 'close');
  await until(async () => {
    if (child.exitCode !== null) throw Object.assign(new Error(`it ended before it was killed:\n${output.text}`), { final: true });
    return condition(output.text);
  }, { ms: 40_000, every: 2, what: 'the moment to kill it' });
  child.kill('SIGKILL');
  const [, signal] = await ended;
  assert.equal(signal, 'SIGKILL');
}

/** The columns, indexes and constraints that Starling's own tables have, comparable between databases. */
async function starlingParts(db) {
  const { rows: columns } = await db.query(`
    SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns
    WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx%' ORDER BY 1, 2`);
  const { rows: indexes } = await db.query(`
    SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1`);
  const { rows: constraints } = await db.query(`
    SELECT conrelid::regclass::text AS place, contype, convalidated,
      regexp_replace(regexp_replace(pg_get_constraintdef(oid), ' ON DELETE CASCADE', ''), '\\s+', ' ', 'g') AS definition
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 't' ORDER BY 1, 4`);
  return {
    // The ids that the old tables have may be narrower.
    columns: columns.map((row) => `${row.table_name}.${row.column_name} ${row.column_name === 'id' ? '' : row.data_type} ${row.is_nullable}`),
    indexes: indexes.map((row) => `${row.indexname}: ${row.indexdef}`),
    constraints: constraints.map((row) => `${row.place} ${row.contype} ${row.convalidated} ${row.definition}`),
  };
}

/** What a freshly migrated database has and this one lacks. */
async function missingIn(db) {
  const fresh = await createDatabase();
  try {
    const migrated = await run(['migrate'], { DATABASE_URL: fresh.url });
    assert.equal(migrated.code, 0, migrated.stderr);
    const [wanted, there] = [await starlingParts(fresh.pool), await starlingParts(db)];
    return Object.fromEntries(Object.entries(wanted).map(([kind, lines]) => [kind, lines.filter((line) => !there[kind].includes(line))]));
  } finally {
    await fresh.drop();
  }
}

/** Every room's messages are 1..N and `last_seq` is N. */
async function assertGapless(db) {
  const { rows } = await db.query(`
    SELECT r.id, r.last_seq, count(m.id) AS messages, count(DISTINCT m.seq) AS seqs, min(m.seq) AS low, max(m.seq) AS high
    FROM rooms r LEFT JOIN messages m ON m.room_id = r.id
    GROUP BY r.id
    HAVING r.last_seq IS DISTINCT FROM count(m.id) OR count(DISTINCT m.seq) <> count(m.id)
      OR coalesce(max(m.seq), 0) <> count(m.id) OR coalesce(min(m.seq), 1) <> 1`);
  assert.deepEqual(rows, []);
}

describe('a living database is adopted', () => {
  let database;
  let db;
  let writers;
  let server;
  let written = [];
  before(async () => {
    database = await createDatabase();
    db = database.pool;
    await fill(db, { rooms: ROOMS, messages: MESSAGES });
  });
  after(async () => {
    await writers?.stop().catch(() => {});
    if (server) await server.stop();
    else await database.drop();
  });

  test('a dry run says what it would do, and changes nothing', async () => {
    const earlier = [await schemaOf(db), await rowsOf(db)];
    const { code, stdout, stderr } = await adopt(database, '--dry-run');
    assert.equal(code, 0, stderr);
    assert.match(stdout, /200000 messages in 300 rooms get their seq/);
    assert.match(stdout, /column messages\.seq bigint/);
    assert.match(stdout, /messages: 200000 rows/);
    assert.match(stdout, /Nothing was changed/);
    assert.deepEqual([await schemaOf(db), await rowsOf(db)], earlier);
  });

  test('killed at any moment and run again while servers write, it loses nothing and numbers every room 1..N', async () => {
    await db.query(`
      CREATE SCHEMA earlier;
      CREATE TABLE earlier.messages AS
        SELECT id, room_id, sender_id, content, created_at, message_type, metadata,
          row_number() OVER (PARTITION BY room_id ORDER BY created_at, id) AS place
        FROM messages`);
    writers = startWriters(database.url, { connections: 6, rooms: ROOMS });
    await until(() => writers.count > 50, { what: 'servers to write' });

    // Fails, which is "not yet", while there is no such column.
    const numbered = (count) => async () => await value(db, 'SELECT count(seq)::int FROM messages') >= count;
    const moments = [
      (text) => text.includes('Adding what is missing'),
      (text) => text.includes('Preparing indexes'),
      numbered(3_000),
      numbered(60_000),
      numbered(120_000),
      (text) => text.includes('messages_search_idx'),
      (text) => text.includes('Setting watermarks'),
      (text) => text.includes('Adding constraints'),
    ];
    for (const moment of moments) await killWhen(database, moment);
    const { code, stdout, stderr } = await adopt(database);
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /goes on from where it was/);
    assert.match(stdout, /Done\. \d+ messages in \d+ rooms are numbered/);

    written = (await writers.stop()).ids;
    writers = undefined;
    assert.equal(Number(await value(db, 'SELECT count(*) FROM messages')), MESSAGES + written.length);
    assert.equal(Number(await value(db, 'SELECT count(*) FROM messages WHERE id = ANY($1)', [written])), written.length);
    await assertGapless(db);
    const changed = await value(db, `
      SELECT count(*) FROM earlier.messages e LEFT JOIN messages m ON m.id = e.id AND m.seq = e.place
      WHERE m.id IS NULL
         OR (m.room_id, m.sender_id, m.content, m.created_at) <> (e.room_id, e.sender_id, e.content, e.created_at)
         OR m.message_type <> coalesce(e.message_type, 'text') OR m.metadata <> coalesce(e.metadata, '{}')`);
    assert.equal(Number(changed), 0);
  });

  test('watermarks are what the receipts say', async () => {
    const wrong = await db.query(`
      SELECT rm.id, rm.joined_seq, rm.last_read_seq, rm.last_delivered_seq, w.*
      FROM room_members rm
      CROSS JOIN LATERAL (
        SELECT
          (SELECT count(*) FROM messages m WHERE m.room_id = rm.room_id AND m.created_at < rm.joined_at) AS joined,
          greatest(rm.joined_seq, least(max(m.seq) FILTER (WHERE r.read_at IS NOT NULL), min(m.seq) FILTER (WHERE r.read_at IS NULL) - 1)) AS read,
          greatest(rm.joined_seq, least(max(m.seq) FILTER (WHERE r.delivered_at IS NOT NULL), min(m.seq) FILTER (WHERE r.delivered_at IS NULL) - 1)) AS delivered,
          bool_or(r.read_at IS NOT NULL) AS some_read,
          bool_or(r.delivered_at IS NOT NULL) AS some_delivered
        FROM messages m
        JOIN message_receipts r ON r.message_id = m.id
        WHERE m.room_id = rm.room_id AND r.user_id = rm.user_id AND m.seq > rm.joined_seq
      ) w
      WHERE rm.joined_at < '2026-01-01'
        AND (
          rm.joined_seq <> w.joined
          OR rm.last_read_seq <> CASE WHEN w.some_read THEN w.read ELSE rm.joined_seq END
          OR rm.last_delivered_seq <> CASE WHEN w.some_delivered THEN w.delivered ELSE rm.joined_seq END
        )
      LIMIT 3`);
    assert.deepEqual(wrong.rows, []);
    assert.ok(await value(db, 'SELECT count(*) FROM room_members WHERE last_read_seq > joined_seq') > 300);
    assert.ok(await value(db, 'SELECT count(*) FROM room_members WHERE joined_seq > 0') > 200);
  });

  test('a second run says that the database is adopted, and changes nothing', async () => {
    await db.query('DROP SCHEMA earlier CASCADE');
    const earlier = [await schemaOf(db), await rowsOf(db)];
    const { code, stdout } = await adopt(database);
    assert.equal(code, 0);
    assert.match(stdout, /Starling's already/);
    assert.deepEqual([await schemaOf(db), await rowsOf(db)], earlier);
    const migrated = await run(['migrate'], { DATABASE_URL: database.url });
    assert.equal(migrated.code, 0, migrated.stderr);
  });

  test('Starling serves it: old passwords log in, history is there, and both kinds of servers write into one order', async () => {
    server = await startServer({ database, env: { MESSAGE_RATE_PER_USER: '0' } });
    // One hash of each kind.
    const users = [];
    for (const [id, kind] of [[1, '$2b$'], [2, '$2y$'], [3, '$2a$']]) {
      const { rows: [row] } = await db.query('SELECT username, password_hash FROM users WHERE id = $1', [id]);
      assert.equal(row.password_hash, kind + HASH);
      users.push(await login(server.url, { username: row.username.toLowerCase(), password: OLD_PASSWORD }));
    }
    answeredWith401(await api(server.url).post('/auth/login', { username: 'user1', password: 'another' }));

    const members = await value(db, 'SELECT array_agg(user_id) FROM room_members WHERE room_id = 1');
    const id = members[0];
    const username = await value(db, 'SELECT username FROM users WHERE id = $1', [id]);
    const user = await login(server.url, { username, password: OLD_PASSWORD });
    const rooms = answered(await user.api.get('/rooms')).rooms;
    assert.ok(rooms.length > 10);
    const page = answered(await user.api.get('/rooms/1/messages?limit=100'));
    const last = Number(await value(db, 'SELECT last_seq FROM rooms WHERE id = 1'));
    assert.deepEqual(page.messages.map((m) => m.seq), Array.from({ length: 100 }, (_, i) => last - 99 + i));

    const client = await connect(server.url, user, { offline: 'silent' });
    try {
      writers = startWriters(database.url, { connections: 4, rooms: ROOMS });
      let sent = 0;
      for (; sent < 200; sent += 1) {
        const ack = await client.socket.timeout(10_000).emitWithAck('message:send', { roomId: 1, content: `from Starling ${sent}` });
        assert.equal(ack.ok, true, JSON.stringify(ack));
      }
      const more = (await writers.stop()).ids;
      writers = undefined;
      assert.equal(Number(await value(db, 'SELECT count(*) FROM messages')), MESSAGES + written.length + more.length + sent);
      await assertGapless(db);
      const backwards = await value(db, `
        SELECT count(*) FROM (
          SELECT created_at < lag(created_at) OVER (ORDER BY seq) AS back FROM messages WHERE room_id = 1 AND seq > $1
        ) t WHERE back`, [last]);
      assert.equal(Number(backwards), 0);
    } finally {
      client.close();
    }
    // A pair that the old servers made is found, not made again.
    const { rows: [pair] } = await db.query("SELECT id, direct_low, direct_high FROM rooms WHERE room_type = 'direct' ORDER BY id LIMIT 1");
    const low = await value(db, 'SELECT username FROM users WHERE id = $1', [pair.direct_low]);
    const one = await login(server.url, { username: low, password: OLD_PASSWORD });
    const opened = answered(await one.api.post('/rooms', { roomType: 'direct', memberIds: [pair.direct_high] }), 200);
    assert.equal(opened.room.id, pair.id);
    const taken = await api(server.url).post('/auth/register', { username: 'user1', email: 'a@example.test', password: 'long enough' });
    assert.equal(taken.status, 409);
    const exactly = await api(server.url).post('/auth/register', { username: 'User1', email: 'b@example.test', password: 'long enough' });
    assert.equal(exactly.status, 409);
  });

  test('--finish leaves a schema as a fresh one, with nothing of the adoption in it', async () => {
    const { code, stdout, stderr } = await adopt(database, '--finish');
    assert.equal(code, 0, stdout + stderr);
    assert.deepEqual(await missingIn(db), { columns: [], indexes: [], constraints: [] });
    const left = await value(db, `
      SELECT count(*) FROM pg_class WHERE relname LIKE 'starling%'`);
    assert.equal(Number(left), 0);
    assert.equal(Number(await value(db, "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'starling%'")), 0);
    await assert.rejects(db.query("INSERT INTO messages (id, room_id, sender_id, content) VALUES (gen_random_uuid(), 1, 1, 'plain')"), /null value/);
    const again = await adopt(database, '--finish');
    assert.equal(again.code, 0, again.stderr);
  });
});

function answeredWith401({ status }) {
  assert.equal(status, 401);
}

describe('a database that can\'t be adopted', () => {
  const refused = async (statements, ...sentences) => {
    const database = await createDatabase();
    try {
      for (const statement of statements) await database.pool.query(statement);
      const tables = (await database.pool.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).rows.map((row) => row.tablename);
      const earlier = [await schemaOf(database.pool), await rowsOf(database.pool, tables)];
      for (const args of [['--dry-run'], []]) {
        const { code, stdout, stderr } = await adopt(database, ...args);
        assert.equal(code, 1, stdout);
        for (const sentence of sentences) assert.match(stdout + stderr, sentence);
        assert.deepEqual([await schemaOf(database.pool), await rowsOf(database.pool, tables)], earlier);
      }
    } finally {
      await database.drop();
    }
  };

  test('names every obstacle in a sentence and changes nothing', () => refused(
    [
      SCHEMA,
      'ALTER TABLE messages ALTER COLUMN room_id DROP NOT NULL',
      'ALTER TABLE message_receipts DROP CONSTRAINT message_receipts_message_id_user_id_key',
      "INSERT INTO users (username, email, password_hash) VALUES ('Ann', 'ann@x.org', 'h'), ('ann', 'other@x.org', 'h')",
      "INSERT INTO rooms (name, created_by) VALUES ('a', 1), ('b', NULL)",
      "INSERT INTO messages (id, room_id, sender_id, content, message_type, metadata) VALUES ('00000000-0000-4000-8000-000000000000', NULL, 1, 'x', 'sticker', '[]')",
      "INSERT INTO message_receipts (message_id, user_id) SELECT '00000000-0000-4000-8000-000000000000', 1 FROM generate_series(1, 2)",
      'ALTER TABLE messages ADD COLUMN status text NOT NULL',
    ].map((statement) => statement.replace('ADD COLUMN status text NOT NULL', "ADD COLUMN status text NOT NULL DEFAULT 'x', ALTER COLUMN status DROP DEFAULT")),
    /1 usernames belong to several users if case is ignored, such as ann/,
    /1 messages are in no room/,
    /rooms\.created_by is NULL in 1 rows/,
    /1 rows of messages have values that Starling can't read: .*sticker|message_type = ANY/,
    /1 pairs \(message, user\) have several receipts/,
    /messages\.status is NOT NULL without a default/,
    /things must be mended first|of these must be mended first/,
  ));

  test('refuses times without a zone, and says how to mend them', () => refused(
    [SCHEMA, 'ALTER TABLE messages ALTER COLUMN created_at TYPE timestamp'],
    /messages\.created_at is timestamp without time zone and must be timestamp with time zone/,
    /ALTER TABLE messages ALTER COLUMN created_at TYPE timestamptz/,
  ));

  test('is no chat at all', () => refused(
    ['CREATE TABLE users (id int)'],
    /not the database of a chat: it has no table rooms, room_members, messages/,
  ));
});

describe('a variant with less in it', () => {
  test('without receipts, sessions, indexes and optional columns it becomes the same', async () => {
    const database = await createDatabase();
    const db = database.pool;
    try {
      await db.query(`
        CREATE TABLE users (id SERIAL PRIMARY KEY, username TEXT NOT NULL, email TEXT NOT NULL, password_hash TEXT NOT NULL, created_at TIMESTAMPTZ NOT NULL);
        CREATE TABLE rooms (id SERIAL PRIMARY KEY, name TEXT NOT NULL, room_type TEXT NOT NULL, created_by INT NOT NULL, created_at TIMESTAMPTZ NOT NULL);
        CREATE TABLE room_members (id SERIAL PRIMARY KEY, room_id INT NOT NULL, user_id INT NOT NULL);
        CREATE TABLE messages (id UUID PRIMARY KEY, room_id INT NOT NULL, sender_id INT NOT NULL, content TEXT NOT NULL, created_at TIMESTAMPTZ NOT NULL);
        INSERT INTO users (username, email, password_hash, created_at) SELECT 'user' || i, i || '@x.org', 'h', now() FROM generate_series(1, 3) i;
        INSERT INTO rooms (name, room_type, created_by, created_at) VALUES ('One', 'group', 1, now() - interval '1 day'), ('Empty', 'group', 1, now());
        INSERT INTO room_members (room_id, user_id) VALUES (1, 1), (1, 2), (2, 1);
        INSERT INTO messages (id, room_id, sender_id, content, created_at) SELECT gen_random_uuid(), 1, 1, i, now() - i * interval '1 minute' FROM generate_series(1, 25) i`);
      const { code, stdout, stderr } = await adopt(database);
      assert.equal(code, 0, stdout + stderr);
      await assertGapless(db);
      // Nobody kept receipts: nobody has anything unread.
      assert.deepEqual((await db.query('SELECT room_id, last_read_seq::int AS read FROM room_members ORDER BY id')).rows, [
        { room_id: 1, read: 25 }, { room_id: 1, read: 25 }, { room_id: 2, read: 0 },
      ]);
      await db.query("INSERT INTO messages (id, room_id, sender_id, content, created_at) VALUES (gen_random_uuid(), 2, 1, 'plain', now())");
      const finished = await adopt(database, '--finish');
      assert.equal(finished.code, 0, finished.stderr);
      assert.deepEqual(await missingIn(db), { columns: [], indexes: [], constraints: [] });
      await assertGapless(db);
    } finally {
      await database.drop();
    }
  });

  test('a server that deletes numbered messages meanwhile leaves no gap behind', async () => {
    const database = await createDatabase();
    const db = database.pool;
    try {
      await fill(db, { rooms: 5, messages: 3_000 });
      await killWhen(database, (text) => text.includes('Building indexes'));
      await db.query('DELETE FROM messages WHERE room_id = 2 AND seq IN (3, 5)');
      const { code, stdout, stderr } = await adopt(database);
      assert.equal(code, 0, stdout + stderr);
      await assertGapless(db);
    } finally {
      await database.drop();
    }
  });
});
