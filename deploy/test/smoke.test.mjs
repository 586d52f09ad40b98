// Walks people through a cluster: every transport, and all that can happen to a cluster while they talk. The fault
// suite's checker (loadtest/chaos/checker.mjs) compares what they saw with what is in PostgreSQL at the end.
//
//   STARLING_SMOKE=long   more people, and each fault several times and for longer
//
// History, report and logs are in .starling/cluster-smoke.

import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { sleep } from '../../crates/server/e2e/support/wait.mjs';
import { LIMITS, check } from '../../loadtest/chaos/checker.mjs';
import { History } from '../../loadtest/chaos/history.mjs';
import { Cluster, LOGS } from '../native/cluster.mjs';
import { Crowd, TRANSPORTS } from '../smoke/crowd.mjs';

const LONG = process.env.STARLING_SMOKE === 'long';
const SIZE = LONG ? { users: 60, rooms: 12, members: 15 } : { users: 12, rooms: 3, members: 8 };
/** Messages a second of all. */
const RATE = LONG ? 60 : 30;
const ROUNDS = LONG ? 3 : 1;
/** A process or a backend that is killed is away for so long; in the short form, until some messages were acknowledged. */
const AWAY_MS = LONG ? 6_000 : 0;
const DRAIN_SECONDS = 10;

const folder = `${LOGS}-smoke`;
let cluster;
let crowd;
let end;

before(async () => {
  rmSync(folder, { recursive: true, force: true });
  const history = new History(folder);
  cluster = await Cluster.start({
    instances: Number(process.env.STARLING_INSTANCES ?? 4),
    env: { DB_MAX_CONNECTIONS: '20', DRAIN_TIMEOUT_SECONDS: String(DRAIN_SECONDS), ACCESS_TOKEN_TTL_SECONDS: '14400' },
    logs: folder,
    told: (change) => history.write('instance', change),
  });
  // Until nothing is left of a process that was killed, half a minute goes by: too long for the short form.
  crowd = await Crowd.gather(cluster, await cluster.seed(SIZE), { history, double: [0], observed: LONG });
}, { timeout: 120_000 });

after(async () => {
  await crowd?.close();
  await cluster?.stop();
});

/** A fault while people talk; they talk before and after it, over every transport. */
async function during(kind, action, { instances = () => null, ...detail } = {}) {
  for (let round = 0; round < ROUNDS; round += 1) {
    await crowd.flows(10);
    const instance = cluster.instances[round % cluster.instances.length];
    await crowd.fault(kind, instances(instance), detail, () => action(instance));
    await crowd.people.there(30_000);
    await crowd.flows(crowd.devices.length * 2);
  }
}

/** Somebody is served meanwhile. */
const away = () => Promise.all([crowd.flows(10), sleep(AWAY_MS)]);

test('the web app comes through NGINX, which keeps what has a hash in its name', async (t) => {
  const get = (file) => fetch(`${cluster.url}${file}`, { headers: { accept: 'text/html,*/*', 'accept-encoding': 'br' } });
  const page = await get('/');
  const assets = (await page.text()).match(/\/assets\/[^"]+/g);
  assert.equal(page.headers.get('cache-control'), 'no-cache');
  // `script/cluster-smoke` alone does not build the app; `script/test` does.
  if (!assets) return t.skip('it is not built');
  for (const file of assets) {
    const [first, again] = [await get(file), await get(file)];
    assert.deepEqual([first.status, again.status, again.headers.get('x-cache')], [200, 200, 'HIT'], file);
    assert.match(again.headers.get('cache-control'), /immutable/);
    assert.equal(again.headers.get('content-encoding'), first.headers.get('content-encoding'));
    assert.equal(await again.text(), await first.text());
  }
});

test('people are on every instance, by every transport', () => {
  const instances = new Set(crowd.devices.map(({ instance }) => instance));
  assert.deepEqual([...instances].sort(), cluster.instances.map(({ name }) => name).sort());
  assert.deepEqual(new Set(crowd.devices.map(({ transports }) => transports)), new Set(TRANSPORTS));
  crowd.people.talk(RATE);
});

test('a rolling restart', () => during('rolling', async () => {
  for (const instance of cluster.instances) {
    await crowd.drain(instance);
    await instance.start();
  }
}));

test('an instance is killed and comes back', () => during('kill', async (instance) => {
  await instance.stop('SIGKILL');
  await away();
  await instance.start();
}, { instances: ({ name }) => [name] }));

test('NGINX is reloaded, and nobody with a WebSocket notices', () => during('nginx-reload', async () => {
  const connections = () => crowd.devices.filter(({ transports }) => transports === TRANSPORTS[0]).map(({ conn }) => conn);
  const before = connections();
  await cluster.nginx.reload();
  await crowd.flows(crowd.devices.length);
  assert.deepEqual(connections(), before);
}, { instances: () => [] }));

test('Redis is killed and comes back', () => during('redis-restart', async () => {
  await cluster.redis.stop('SIGKILL');
  await away();
  await cluster.redis.start();
}, { signal: 'SIGKILL' }));

test('PostgreSQL is restarted', () => during('postgres-restart', () => cluster.postgres.restart(), { mode: 'fast' }));

test('PostgreSQL crashes and recovers', () => during('postgres-restart', () => cluster.postgres.restart('SIGQUIT'), { mode: 'immediate' }));

test('no promise is broken', { timeout: 200_000 }, async (t) => {
  end = await crowd.verdict({
    title: 'Starling cluster smoke', form: LONG ? 'long' : 'short', limits: { ...LIMITS, drain: (DRAIN_SECONDS + 3) * 1_000 },
  });
  const { faults, acknowledged, messages } = end.figures;
  end.text.split('\n').forEach((line) => t.diagnostic(line));
  const count = Object.values(faults).reduce((sum, times) => sum + times, 0);
  t.diagnostic(`messages: ${messages}, faults: ${count}, violations: ${end.violations.length}`);
  assert.deepEqual(end.violations, [], end.text);
  assert.deepEqual(faults, { rolling: ROUNDS, kill: ROUNDS, 'nginx-reload': ROUNDS, 'redis-restart': ROUNDS, 'postgres-restart': 2 * ROUNDS });
  assert.ok(acknowledged > 100 && acknowledged === messages, end.text);
});

test('what is lost in this history would be found', () => {
  const { records, final } = end;
  const lost = records.findLast(({ kind, ok }) => kind === 'ack' && ok);
  const unheard = records.findLast(({ kind, id }) => kind === 'new' && id !== lost.id);
  const violations = check(records.filter((record) => record !== unheard), { ...final, messages: final.messages.filter(({ id }) => id !== lost.id) });
  assert.ok(violations.some(({ kind, id }) => kind === 'acknowledged-lost' && id === lost.id));
  assert.ok(violations.some(({ kind, conn }) => ['silent-gap', 'gap-on-connection'].includes(kind) && conn === unheard.conn));
});
