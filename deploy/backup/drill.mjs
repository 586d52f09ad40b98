// Tries a dump; see restore-drill.

import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Instance } from '../native/cluster.mjs';
import { Postgres } from '../native/postgres.mjs';
import { STARLING, freePort, postgresProgram, run } from '../native/tools.mjs';

const script = (name) => fileURLToPath(new URL(name, import.meta.url));

/** What no constraint holds by itself: each must answer no row. */
const CHECKS = {
  'rooms whose messages do not end at last_seq': `SELECT r.id FROM rooms r LEFT JOIN messages m ON m.room_id = r.id
    GROUP BY r.id HAVING r.last_seq <> coalesce(max(m.seq), 0)`,
  'rooms with gaps': 'SELECT room_id FROM messages GROUP BY room_id HAVING max(seq) <> count(*)',
  'watermarks beyond the room': `SELECT m.room_id FROM room_members m JOIN rooms r ON r.id = m.room_id
    WHERE greatest(m.last_read_seq, m.last_delivered_seq) > r.last_seq`,
  'receipts without a message': `SELECT c.message_id FROM message_receipts c LEFT JOIN messages m ON m.id = c.message_id
    WHERE m.id IS NULL LIMIT 10`,
};

/** Checks a database and serves it for a moment: counts of rows. */
export async function inspect(postgres, log) {
  for (const [what, sql] of Object.entries(CHECKS)) {
    const rows = await postgres.query(sql);
    if (rows.length > 0) throw new Error(`${what}: ${rows.slice(0, 10).join(', ')}`);
  }
  const env = { DATABASE_URL: postgres.url, JWT_SECRET: randomBytes(32).toString('hex') };
  // Nothing to do for a dump of this version; an older one is brought up to date.
  await run(STARLING, ['migrate'], { env });
  const instance = new Instance({ name: 'drill', port: await freePort(), env, log });
  try {
    await instance.start();
  } finally {
    await instance.stop();
  }
  const [counts] = await postgres.query('SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM rooms), (SELECT count(*) FROM messages)');
  const [users, rooms, messages] = counts.split('|').map(Number);
  return { users, rooms, messages };
}

/** Restores the dump in `dump` on a private PostgreSQL and inspects it. */
export async function drill(dump) {
  // A dump that can't be read to its end needs no database to be found out.
  await run(postgresProgram('pg_restore'), ['--list', path.resolve(dump)]);
  const folder = mkdtempSync(path.join(tmpdir(), 'starling-drill-'));
  chmodSync(folder, 0o755);
  let postgres;
  try {
    postgres = await Postgres.create({ folder, port: await freePort(), log: path.join(folder, 'postgres.log') });
    const started = performance.now();
    await run(script('restore'), [path.resolve(dump)], { env: { DATABASE_URL: postgres.url }, ms: 3_600_000 });
    const seconds = (performance.now() - started) / 1000;
    return { ...await inspect(postgres, path.join(folder, 'server.log')), seconds };
  } finally {
    await postgres?.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    if (process.argv.length !== 3) throw new Error('usage: deploy/backup/restore-drill FOLDER');
    const { users, rooms, messages, seconds } = await drill(process.argv[2]);
    console.log(`restored in ${seconds.toFixed(1)} s and served: ${users} users, ${rooms} rooms, ${messages} messages`);
  } catch (error) {
    console.error(`error: ${error.message}`);
    process.exitCode = 1;
  }
}
