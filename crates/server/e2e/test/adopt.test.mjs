// A living database moves in: `starling adopt`, killed and run again, while Node.js servers write.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  adopt, assertGapless, killWhen, missingIn, rowsOf, schemaOf, value,
} from '../support/adoption.mjs';
import { api, connect, login } from '../support/client.mjs';
import { answered } from '../support/expect.mjs';
import { fill, HASH, OLD_PASSWORD, startWriters } from '../support/node-backend.mjs';
import { createDatabase, run, startServer } from '../support/server.mjs';
import { until } from '../support/wait.mjs';

const ROOMS = 300;
const MESSAGES = 200_000;

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

    // Each fails, which is "not yet", while there is no such table or column.
    const within = () => value(db, 'SELECT count(*)::int FROM starling_adoption_rooms WHERE numbered >= 5000');
    const halfway = async () => await value(db, 'SELECT count(*)::int FROM rooms WHERE last_seq > 0') >= ROOMS / 2;
    const moments = [
      (text) => text.includes('Adding what is missing'),
      within,
      halfway,
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
      WITH marks AS (
        SELECT rm.id,
          max(m.seq) FILTER (WHERE r.read_at IS NOT NULL) AS read,
          min(m.seq) FILTER (WHERE r.read_at IS NULL) AS unread,
          max(m.seq) FILTER (WHERE r.delivered_at IS NOT NULL) AS delivered,
          min(m.seq) FILTER (WHERE r.delivered_at IS NULL) AS undelivered
        FROM room_members rm
        JOIN messages m ON m.room_id = rm.room_id AND m.seq > rm.joined_seq
        JOIN message_receipts r ON r.message_id = m.id AND r.user_id = rm.user_id
        GROUP BY rm.id
      ),
      before AS (
        SELECT rm.id, count(*) AS joined
        FROM room_members rm
        JOIN messages m ON m.room_id = rm.room_id AND m.created_at < rm.joined_at
        GROUP BY rm.id
      )
      SELECT rm.*, m.*, b.*
      FROM room_members rm LEFT JOIN marks m ON m.id = rm.id LEFT JOIN before b ON b.id = rm.id
      WHERE rm.joined_at < '2026-01-01'
        AND (
          rm.joined_seq <> coalesce(b.joined, 0)
          OR rm.last_read_seq <> CASE WHEN m.read IS NULL THEN rm.joined_seq
            ELSE greatest(rm.joined_seq, least(m.read, m.unread - 1)) END
          OR rm.last_delivered_seq <> CASE WHEN m.delivered IS NULL THEN rm.joined_seq
            ELSE greatest(rm.joined_seq, least(m.delivered, m.undelivered - 1)) END
        )
      LIMIT 3`);
    assert.deepEqual(wrong.rows, []);
    assert.ok(await value(db, 'SELECT count(*) FROM room_members WHERE last_read_seq > joined_seq') > 200);
    assert.ok(await value(db, 'SELECT count(*) FROM room_members WHERE joined_seq > 0') > 150);
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
    const wrong = await api(server.url).post('/auth/login', { username: 'user1', password: 'another' });
    assert.equal(wrong.status, 401);

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
    assert.equal(Number(await value(db, "SELECT count(*) FROM pg_trigger WHERE tgname IN ('messages_changed', 'reactions_changed')")), 2);
    await assert.rejects(db.query("INSERT INTO messages (id, room_id, sender_id, content) VALUES (gen_random_uuid(), 1, 1, 'plain')"), /null value/);
    const again = await adopt(database, '--finish');
    assert.equal(again.code, 0, again.stderr);
  });
});
