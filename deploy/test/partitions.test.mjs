// Receipts by month: servers run on it as before, and months are added while they write.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { until } from '../../crates/server/e2e/support/wait.mjs';
import { History } from '../../loadtest/chaos/history.mjs';
import { Cluster } from '../native/cluster.mjs';
import { ROOT, postgresProgram, run } from '../native/tools.mjs';
import { Crowd } from '../smoke/crowd.mjs';

const SCRIPT = path.join(ROOT, 'deploy/postgres/partition-receipts.sql');
const history = new History();
let cluster;
let crowd;

before(async () => {
  cluster = await Cluster.start({
    instances: 2, env: { DB_MAX_CONNECTIONS: '10' }, told: (change) => history.write('instance', change),
  });
  crowd = await Crowd.gather(cluster, await cluster.seed({ users: 6, rooms: 2, members: 4 }), { history });
}, { timeout: 120_000 });

after(async () => {
  await crowd?.close();
  await cluster?.stop();
});

const partition = () => run(postgresProgram('psql'), [cluster.postgres.url, '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', SCRIPT]);
const count = async (table) => Number((await cluster.postgres.query(`SELECT count(*) FROM ${table}`))[0]);

test('ids that do not grow with time are refused, and nothing is changed', async () => {
  const { postgres } = cluster;
  await postgres.query("INSERT INTO message_receipts (message_id, user_id) VALUES ('f0000000-0000-4000-8000-000000000000', 1)");
  await assert.rejects(partition(), /do not grow with time/);
  await postgres.query('DELETE FROM message_receipts');
  assert.deepEqual(await postgres.query("SELECT relkind FROM pg_class WHERE relname = 'message_receipts'"), ['r']);
});

test('servers go on with what was there and what comes', async () => {
  crowd.people.talk(40);
  await crowd.flows(40);
  let old;
  await crowd.fault('rolling', null, {}, async () => {
    await Promise.all(cluster.instances.map((instance) => crowd.drain(instance)));
    old = await count('message_receipts');
    await partition();
    assert.equal(await count('message_receipts_before'), old);
    await Promise.all(cluster.instances.map((instance) => instance.start()));
  });
  await crowd.people.there();
  await crowd.flows(40);
  // This month still belongs to what was there; twelve more are ready.
  assert.ok(await count('message_receipts') > old);
  assert.equal(Number((await cluster.postgres.query("SELECT count(*) FROM pg_inherits WHERE inhparent = 'message_receipts'::regclass"))[0]), 14);
});

test('months are added while servers write, and take what had no month', async () => {
  const { postgres } = cluster;
  const far = "starling_uuid_at(date_trunc('month', now()) + interval '15 months 3 days')";
  await postgres.query(`INSERT INTO message_receipts (message_id, user_id) VALUES (${far}, 1)`);
  assert.equal(await count('message_receipts_other'), 1);
  const made = await postgres.query('SELECT starling_receipts_partitions(15)');
  assert.equal(made.length, 3);
  assert.equal(await count('message_receipts_other'), 0);
  assert.equal(await count(made[2]), 1);
  assert.deepEqual(await postgres.query('SELECT starling_receipts_partitions(15)'), []);
  await postgres.query(`DELETE FROM message_receipts WHERE message_id = ${far}`);
  await crowd.flows(20);
});

test('nothing is lost, and everything is delivered', async () => {
  const { violations, text } = await crowd.verdict({ title: 'Receipts by month', form: 'short' });
  assert.deepEqual(violations, [], text);
  await until(async () => Number((await cluster.postgres.query('SELECT count(*) FROM message_receipts WHERE delivered_at IS NULL'))[0]) === 0, { ms: 20_000, every: 200, what: 'all receipts' });
  assert.doesNotMatch(readFileSync(cluster.log('starling-1'), 'utf8'), / ERROR starling_chat: database failed/);
});
