// Backups are tried, not believed: a dump under load, and a point in time.

import assert from 'node:assert/strict';
import { appendFileSync, chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { until } from '../../crates/server/e2e/support/wait.mjs';
import { drill, inspect } from '../backup/drill.mjs';
import { Cluster } from '../native/cluster.mjs';
import { Postgres } from '../native/postgres.mjs';
import { AS_ROOT, ROOT, freePort, postgresProgram, run } from '../native/tools.mjs';
import { Crowd } from '../smoke/crowd.mjs';

const script = (name) => path.join(ROOT, 'deploy/backup', name);
/** Messages a second of all. */
const RATE = 40;
let folder;
let archive;
let cluster;
let crowd;

before(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'starling-backup-'));
  chmodSync(folder, 0o755);
  archive = path.join(folder, 'archive');
  mkdirSync(archive);
  if (AS_ROOT) chmodSync(archive, 0o777);
  cluster = await Cluster.start({
    instances: 2,
    env: { DB_MAX_CONNECTIONS: '10', MESSAGE_RATE_PER_USER: '0' },
    settings: { archive_mode: 'on', archive_command: `test ! -f ${archive}/%f && cp %p ${archive}/%f` },
  });
  crowd = await Crowd.gather(cluster, await cluster.seed({ users: 6, rooms: 2, members: 4 }));
  crowd.people.talk(RATE);
  await crowd.flows(50);
}, { timeout: 120_000 });

after(async () => {
  await crowd?.close();
  await cluster?.stop();
  rmSync(folder, { recursive: true, force: true });
});

test('a dump under load is one moment, and a server runs on it', async (t) => {
  const before = crowd.acknowledged;
  const dump = path.join(folder, 'dump');
  const env = { DATABASE_URL: cluster.postgres.url };
  await run(script('dump'), [dump], { env });
  await crowd.flows(20);
  await crowd.hush();
  await assert.rejects(run(script('dump'), [dump], { env }), /there already/);
  await assert.rejects(run(script('restore'), [dump], { env }), /empty one/);
  const { users, rooms, messages, seconds } = await drill(dump);
  t.diagnostic(`${messages} messages restored in ${seconds.toFixed(1)} s`);
  assert.deepEqual([users, rooms], [6, 2]);
  assert.ok(messages >= before && messages <= crowd.acknowledged + 6, `${before} ≤ ${messages} ≤ ${crowd.acknowledged}`);
});

test('a broken dump is found out', async () => {
  const dump = path.join(folder, 'broken');
  await run(script('dump'), [dump], { env: { DATABASE_URL: cluster.postgres.url } });
  const toc = path.join(dump, 'toc.dat');
  execFileSync('truncate', ['-s', String(Math.floor(readFileSync(toc).length / 2)), toc]);
  await assert.rejects(drill(dump));
});

test('a base backup and the log bring back a point in time', async (t) => {
  const { postgres } = cluster;
  crowd.people.talk(RATE);
  const base = path.join(folder, 'base');
  mkdirSync(base);
  chmodSync(base, 0o700);
  await run(postgresProgram('pg_basebackup'), ['-h', '127.0.0.1', '-p', postgres.port, '-U', 'starling', '-D', path.join(base, 'data'), '-X', 'none', '-c', 'fast']);
  await crowd.flows(30);
  await crowd.hush();
  const [target] = await postgres.query('SELECT clock_timestamp()');
  const [there] = await postgres.query('SELECT count(*) FROM messages');
  // What comes after it must be gone again.
  crowd.people.talk(RATE);
  await crowd.flows(30);
  await crowd.hush();
  const [last] = await postgres.query('SELECT pg_walfile_name(pg_switch_wal())');
  await until(async () => (await postgres.query(`SELECT last_archived_wal >= '${last}' FROM pg_stat_archiver`))[0] === 't', { ms: 20_000, what: 'the log to be archived' });

  const settings = { restore_command: `cp ${archive}/%f %p`, recovery_target_time: target, recovery_target_action: 'promote' };
  if (AS_ROOT) execFileSync('chown', ['-R', String(postgres.owner.uid), base]);
  appendFileSync(path.join(base, 'data/recovery.signal'), '');
  if (AS_ROOT) execFileSync('chown', [String(postgres.owner.uid), path.join(base, 'data/recovery.signal')]);
  const restored = new Postgres({ folder: base, port: await freePort(), log: path.join(folder, 'restored.log'), settings });
  try {
    await restored.start();
    await until(async () => (await restored.query('SELECT pg_is_in_recovery()'))[0] === 'f', { ms: 60_000, what: 'the end of recovery' });
    const { messages } = await inspect(restored, path.join(folder, 'drill.log'));
    assert.equal(messages, Number(there));
    t.diagnostic(`${messages} of ${(await postgres.query('SELECT count(*) FROM messages'))[0]} messages: the state of ${target}`);
  } finally {
    await restored.stop();
  }
});
