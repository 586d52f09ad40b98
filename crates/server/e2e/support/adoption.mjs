// What the tests of `starling adopt` look at.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createDatabase, run, spawnBinary } from './server.mjs';
import { until } from './wait.mjs';

/** Runs it to its end. */
export const adopt = (database, ...args) => run(['adopt', ...args], { DATABASE_URL: database.url }, 60_000);

/** Everything of the schema, as text. */
export async function schemaOf(db) {
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
export async function rowsOf(db, tables = ['users', 'rooms', 'room_members', 'messages', 'message_receipts', 'user_sessions']) {
  const sums = {};
  for (const table of tables) {
    const { rows: [{ sum }] } = await db.query(`SELECT count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) AS sum FROM ${table} t`);
    sums[table] = sum;
  }
  return sums;
}

/** The one value that a query answers. */
export async function value(db, sql, parameters) {
  const { rows: [row] } = await db.query(sql, parameters);
  return Object.values(row)[0];
}

/** Starts an adoption, kills it when its output or the database says so, and waits for its end. */
export async function killWhen(database, condition) {
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
export async function missingIn(db) {
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
export async function assertGapless(db) {
  const { rows } = await db.query(`
    SELECT r.id, r.last_seq, count(m.id) AS messages, count(DISTINCT m.seq) AS seqs, min(m.seq) AS low, max(m.seq) AS high
    FROM rooms r LEFT JOIN messages m ON m.room_id = r.id
    GROUP BY r.id
    HAVING r.last_seq IS DISTINCT FROM count(m.id) OR count(DISTINCT m.seq) <> count(m.id)
      OR coalesce(max(m.seq), 0) <> count(m.id) OR coalesce(min(m.seq), 1) <> 1`);
  assert.deepEqual(rows, []);
}
