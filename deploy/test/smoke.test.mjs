// Walks a crowd through a cluster: every transport, and all that can happen to a cluster while people talk.
//
//   STARLING_SMOKE=long   more people, and each fault several times
//   STARLING_HISTORY=FILE keeps the events for another checker

import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { until } from '../../crates/server/e2e/support/wait.mjs';
import { Cluster, LOGS } from '../native/cluster.mjs';
import { Crowd } from '../smoke/crowd.mjs';
import { History } from '../smoke/history.mjs';
import { judge } from '../smoke/judge.mjs';

const LONG = process.env.STARLING_SMOKE === 'long';
const SIZE = LONG ? { users: 60, rooms: 12, members: 15, every: 300 } : { users: 12, rooms: 3, members: 8, every: 400 };
const ROUNDS = LONG ? 3 : 1;

const history = new History(process.env.STARLING_HISTORY);
let cluster;
let crowd;

before(async () => {
  rmSync(`${LOGS}-smoke`, { recursive: true, force: true });
  cluster = await Cluster.start({
    instances: Number(process.env.STARLING_INSTANCES ?? 4),
    env: { DB_MAX_CONNECTIONS: '20', DRAIN_TIMEOUT_SECONDS: '10' },
    logs: `${LOGS}-smoke`,
  });
  crowd = await Crowd.gather(history, cluster.url, await cluster.seed(SIZE));
}, { timeout: 120_000 });

after(async () => {
  crowd?.close();
  history.flush();
  await cluster?.stop();
});

/** Does something to the cluster while people talk; they go on talking after it, over every transport. */
async function during(what, action) {
  for (let round = 0; round < ROUNDS; round += 1) {
    await crowd.flows(10, until);
    history.record('fault', { what });
    await action(round);
    await Promise.all(crowd.members.map((member) => member.whenReady()));
    await crowd.flows(crowd.members.length * 2, until);
  }
}

const instances = () => new Set(crowd.members.map(({ instance }) => instance));

test('people are on every instance, by every transport', () => {
  assert.deepEqual([...instances()].sort(), cluster.instances.map(({ name }) => name).sort());
  for (const transport of ['websocket', 'polling', 'upgrade']) {
    assert.ok(crowd.members.some((member) => member.transport === transport));
  }
  crowd.talk(SIZE.every);
});

test('a rolling restart', () => during('rolling restart', () => cluster.rollingRestart()));

test('an instance is killed and comes back', () => during('kill -9 of an instance', async (round) => {
  const instance = cluster.instances[round % cluster.instances.length];
  await instance.stop('SIGKILL');
  await crowd.flows(10, until);
  await instance.start();
}));

test('NGINX is reloaded, and nobody with a WebSocket notices', () => during('NGINX reload', async () => {
  const before = crowd.members.filter(({ transport }) => transport === 'websocket').map(({ connects }) => connects);
  await cluster.nginx.reload();
  await crowd.flows(crowd.members.length, until);
  const now = crowd.members.filter(({ transport }) => transport === 'websocket').map(({ connects }) => connects);
  assert.deepEqual(now, before);
}));

test('Redis is killed and comes back', () => during('kill -9 of Redis', async () => {
  await cluster.redis.stop('SIGKILL');
  await crowd.flows(10, until);
  await cluster.redis.start();
}));

test('PostgreSQL is restarted', () => during('PostgreSQL restart', () => cluster.postgres.restart()));

test('PostgreSQL crashes and recovers', () => during('PostgreSQL crash', () => cluster.postgres.restart('SIGQUIT')));

test('nothing is lost, nothing comes twice, everybody sees one order', async (t) => {
  await crowd.hush();
  await crowd.settle();
  const { violations, counts } = judge(history.events);
  t.diagnostic(JSON.stringify(counts));
  assert.deepEqual(violations.slice(0, 20), []);
  assert.ok(counts.stored > 100 && counts.acked === counts.sent, JSON.stringify(counts));
});
