// Databases that `starling adopt` refuses, and such as have less, or change, in them.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import {
  adopt, assertGapless, killWhen, missingIn, rowsOf, schemaOf,
} from '../support/adoption.mjs';
import { fill, SCHEMA, startWriters } from '../support/node-backend.mjs';
import { createDatabase } from '../support/server.mjs';
import { until } from '../support/wait.mjs';

const UNDO = new URL('../../../../db/compat/undo-adoption.sql', import.meta.url);

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
      "ALTER TABLE messages ADD COLUMN status text NOT NULL DEFAULT 'x'",
      'ALTER TABLE messages ALTER COLUMN status DROP DEFAULT',
    ],
    /1 usernames belong to several users if case is ignored, such as ann/,
    /1 messages are in no room/,
    /rooms\.created_by is NULL in 1 rows/,
    /1 rows of messages have values that Starling can't read: it needs \(message_type = ANY/,
    /1 rows of messages have values that Starling can't read: it needs \(jsonb_typeof\(metadata\)/,
    /1 pairs \(message, user\) have several receipts/,
    /messages\.status is NOT NULL without a default/,
    /7 things of these must be mended first; nothing was changed/,
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

describe('the way back', () => {
  const undone = async (adoption) => {
    const database = await createDatabase();
    const db = database.pool;
    let writers;
    try {
      await fill(db, { rooms: 20, messages: 5_000 });
      const columns = `SELECT table_name, column_name, is_nullable FROM information_schema.columns
        WHERE table_schema = 'public' ORDER BY 1, 2`;
      const tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1";
      const earlier = [(await db.query(columns)).rows.map((row) => `${row.table_name}.${row.column_name}`), (await db.query(tables)).rows];
      writers = startWriters(database.url, { connections: 3, rooms: 20 });
      await adoption(database);
      const undo = await readFile(UNDO, 'utf8');
      // Its short lock_timeout may pass beside busy servers: then it is run again.
      await until(async () => {
        // All of it is one transaction, as one query.
        await db.query(undo);
        return true;
      }, { ms: 30_000, every: 100, what: 'the additions to go' });
      const soFar = writers.count;
      await until(() => writers.count > soFar + 20, { what: 'servers to write on' });
      const { ids } = await writers.stop();
      writers = undefined;
      assert.deepEqual([(await db.query(columns)).rows.map((row) => `${row.table_name}.${row.column_name}`), (await db.query(tables)).rows], earlier);
      const { rows: [{ count }] } = await db.query('SELECT count(*)::int FROM messages');
      assert.equal(count, 5_000 + ids.length);
      // And forth again.
      const { code, stdout, stderr } = await adopt(database);
      assert.equal(code, 0, stdout + stderr);
      await assertGapless(db);
    } finally {
      await writers?.stop().catch(() => {});
      await database.drop();
    }
  };

  test('servers write on while all that was added goes again', () => undone(async (database) => {
    const { code, stderr } = await adopt(database);
    assert.equal(code, 0, stderr);
  }));

  test('also from an adoption that was cut off', () => undone((database) => killWhen(database, (text) => text.includes('Building indexes'))));
});
