// Ways to reach Redis: both versions of its protocol, with a password, in a cluster, behind
// TLS, by way of Sentinel.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { sorted, World } from '../support/cluster.mjs';
import { freePort } from '../../../server/e2e/support/port.mjs';
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

describe('a Redis behind TLS', () => {
  let redis;
  let dir;
  const openssl = (...args) => {
    const { status, stderr } = spawnSync('openssl', args, { cwd: dir, encoding: 'utf8' });
    assert.equal(status, 0, stderr);
  };

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'interop-tls-'));
    const key = (name) => ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', `${name}.key`];
    openssl('req', '-x509', ...key('ca'), '-out', 'ca.crt', '-days', '2', '-subj', '/CN=test authority');
    openssl('req', '-x509', ...key('redis'), '-CA', 'ca.crt', '-CAkey', 'ca.key', '-out', 'redis.crt', '-days', '2',
      '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-addext', 'basicConstraints=CA:FALSE');
    const tlsPort = await freePort();
    redis = await RedisServer.start({ args: ['--tls-port', tlsPort, '--tls-auth-clients', 'no',
      ...['cert-file', 'key-file', 'ca-cert-file'].flatMap((name, n) => [`--tls-${name}`, join(dir, ['redis.crt', 'redis.key', 'ca.crt'][n])])] });
    redis.tls = `rediss://localhost:${tlsPort}`;
  });
  after(async () => {
    await redis?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  // The authorities that the system trusts come from a file here.
  const rust = (trusted) => ['rust', { REDIS_URL: redis.tls, SSL_CERT_FILE: join(dir, trusted) }];

  test('is reached by a server that trusts it', () => everything([rust('ca.crt'), 'node', rust('ca.crt')], { redis }));

  test('is not spoken to by one that does not', async () => {
    openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', 'other.key', '-out', 'other.crt', '-days', '2', '-subj', '/CN=another');
    await assert.rejects(World.start([rust('other.crt')], { redis }), /certificate|Unknown ?Issuer/i);
  });
});

describe('a Redis with a replica under Sentinel', () => {
  const servers = [];
  let sentinel;
  before(async () => {
    const main = await RedisServer.start();
    servers.push(main, await RedisServer.start({ args: ['--replicaof', '127.0.0.1', main.port] }));
    await until(async () => /state=online/.test(await main.command('INFO', 'replication')), 'the replica follows');
    sentinel = await RedisServer.sentinel('chat', main.port);
    await until(async () => {
      const about = await sentinel.command('SENTINEL', 'replicas', 'chat');
      return about.length === 1 && about[0].includes('slave');
    }, 'Sentinel knows the replica');
  });
  after(() => stopAll([sentinel, ...servers].filter(Boolean)));

  test('servers follow when another one becomes the main one', async () => {
    const kinds = ['rust', 'rust'];
    const url = `redis-sentinel://127.0.0.1:${sentinel.port}?sentinelServiceName=chat`;
    const world = await World.start(kinds, { redis: { url } });
    try {
      const clients = [await world.client(0), await world.client(1)];
      await world.counts(clients, 2);
      await servers[0].down('SIGKILL');
      await world.counts(clients, 2);
      const { events } = await world.received(clients, clients[0], 'emit', { target: {}, event: 'event', args: [] });
      assert.equal(Object.keys(events).length, 2);
      assert.match(await servers[1].command('INFO', 'replication'), /role:master/);
      await until(async () => (await clients[0].do('log')).notices.some(({ resubscribed }) => resubscribed === '/'), 'a notice');
    } finally {
      await world.stop();
    }
  });
});
