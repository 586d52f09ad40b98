// Ways to reach Redis: both versions of its protocol, with a password, in a cluster.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { sorted, World } from '../support/cluster.mjs';
import { RedisServer, stopAll } from '../support/processes.mjs';
import { inRoom } from '../support/scenario.mjs';
import { until } from '../support/wait.mjs';

/** A bit of everything, from each server to each. */
async function everything(kinds, options) {
  const world = await World.start(kinds, options);
  try {
    const clients = [];
    for (const n of kinds.keys()) clients.push(await world.client(n));
    const all = clients.map(({ name }) => name);
    await world.counts(clients, kinds.length);
    for (const client of clients) await client.do('enter', { rooms: ['r1', client.name] });
    for (const by of clients) {
      for (const target of [{}, { to: ['r1'] }, { to: all }]) {
        await by.do('emit', { target, event: `by ${by.name}`, args: [Buffer.from('x')] });
      }
      for (const client of clients) {
        await until(() => client.received.filter(([event]) => event === `by ${by.name}`).length === 3, `${client.name} hears ${by.name}`);
      }
      const acks = await by.do('emitWithAck', { target: { to: ['r1'] }, event: 'ask', args: [], timeout: 30_000 });
      assert.deepEqual(sorted(acks.map(({ from }) => from)), all);
      const { sockets } = await by.do('fetchSockets', { target: {} });
      assert.deepEqual(sorted(world.named(sockets.map(({ id }) => id))), all.map((name) => `<${name}>`));
      const { answers } = await by.do('serverSideEmitWithAck', { event: 'ask', args: [] });
      assert.equal(answers.length, kinds.length - 1);
      await by.do('join', { target: { to: ['r1'] }, rooms: ['r2'] });
      await inRoom(by, 'r2', kinds.length);
      await by.do('leave', { target: {}, rooms: ['r2'] });
      await inRoom(by, 'r2', 0);
    }
    for (const { kind, log } of world.peers) if (kind === 'rust') assert.doesNotMatch(log, /panicked|ERROR/);
  } finally {
    await world.stop();
  }
}

describe('a Redis with a password', () => {
  let redis;
  before(async () => { redis = await RedisServer.start({ password: 'secret' }); });
  after(() => redis?.stop());

  const resp2 = () => ['rust', { REDIS_URL: `${redis.url}?protocol=resp2` }];

  test('RESP2 and RESP3, classic', () => everything([resp2(), 'rust', 'node'], { redis }));
  test('RESP2 and RESP3, sharded', () => everything([resp2(), 'rust', 'ioredis'], { redis, env: { PROTOCOL: 'sharded' } }));

  test('RESP2 resumes after a restart', async () => {
    const world = await World.start([resp2(), 'node'], { redis });
    try {
      const clients = [await world.client(0), await world.client(1)];
      await world.counts(clients, 2);
      await redis.down('SIGKILL');
      await redis.up();
      await world.counts(clients, 2);
      for (const by of clients) {
        const { events } = await world.received(clients, by, 'emit', { target: {}, event: 'event', args: [] });
        assert.equal(Object.keys(events).length, 2);
      }
      await until(async () => (await clients[0].do('log')).notices.some(({ resubscribed }) => resubscribed === '/'), 'a notice');
    } finally {
      await world.stop();
    }
  });
});

describe('a Redis Cluster of three nodes', () => {
  const nodes = [];
  let redis;
  before(async () => {
    for (let n = 0; n < 3; n += 1) {
      nodes.push(await RedisServer.start({ args: ['--cluster-enabled', 'yes', '--cluster-node-timeout', '5000'] }));
    }
    const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`);
    const { status, stdout } = spawnSync('redis-cli', ['--cluster', 'create', ...addresses, '--cluster-yes'], { encoding: 'utf8' });
    assert.equal(status, 0, stdout);
    for (const node of nodes) {
      await until(async () => (await node.command('CLUSTER', 'INFO')).includes('cluster_state:ok'), 'the cluster is up');
    }
    redis = { url: nodes[0].url };
  });
  after(() => stopAll(nodes));

  const rust = () => ['rust', { REDIS_URL: nodes[0].url.replace('redis:', 'redis-cluster:') }];
  const env = { CLUSTER: '1' };

  test('classic', () => everything([rust(), 'node', rust(), 'ioredis'], { redis, env }));
  test('sharded', () => everything([rust(), 'ioredis', rust()], { redis, env: { ...env, PROTOCOL: 'sharded' } }));
});
