// The k6 scripts, short: against Starling behind NGINX, against a Node.js server, and against one that lies.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { once } from 'node:events';
import { existsSync, writeFileSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { until } from '../../crates/server/e2e/support/wait.mjs';
import { Cluster } from '../native/cluster.mjs';
import { Process, ROOT, TOOLS, freePort, run } from '../native/tools.mjs';

const K6 = path.join(TOOLS, 'venv/bin/k6');
/** The tests judge what is lost, not how fast a debug build on a busy machine is. */
const SLOW = { READY_P95_MS: 30_000, WAIT_P95_MS: 60_000, ACK_P95_MS: 10_000, DELIVER_P95_MS: 10_000, FIRST_BATCH_P95_MS: 10_000, CATCH_UP_P95_MS: 30_000 };
const SHORT = {
  'connect-storm': { USERS: 40, HOLD: 1, OVER: 1 },
  chat: { USERS: 24, SECONDS: 3, EVERY_MS: 500, SETTLE_MS: 2_000, QUIET_MS: 1_000 },
  offline: { ROOMS: 3, MESSAGES: 60 },
};

/** Runs a script to its end: its summary. A threshold that is crossed is an error with code 99. */
async function k6(name, url, tokens, values = {}) {
  const env = { ...SLOW, ...SHORT[name], ...values, URL: url, TOKENS: tokens };
  const summary = path.join(path.dirname(tokens), `${name}-${Math.random().toString(36).slice(2)}.json`);
  const args = Object.entries(env).flatMap(([key, value]) => ['-e', `${key}=${value}`]);
  await run(K6, ['run', '--quiet', '--no-usage-report', '--summary-export', summary, ...args, path.join(ROOT, `loadtest/k6/${name}.js`)], { ms: 120_000 });
  return JSON.parse(readFileSync(summary, 'utf8')).metrics;
}

let cluster;
let peer;
const servers = {};

before(async () => {
  assert.ok(existsSync(K6), `${K6} is not there: script/setup --test`);
  cluster = await Cluster.start({ instances: 2, env: { DB_MAX_CONNECTIONS: '20', CONNECT_RATE_PER_INSTANCE: '30' } });
  const port = await freePort();
  peer = new Process('peer', process.execPath, [path.join(ROOT, 'loadtest/peer-node/server.mjs')], {
    log: cluster.log('peer'),
    env: {
      DATABASE_URL: cluster.postgres.url, REDIS_URL: cluster.redis.url, BIND_ADDR: `127.0.0.1:${port}`, DB_MAX_CONNECTIONS: '10',
      JWT_SECRET: readFileSync(path.join(cluster.folder, 'jwt-secret'), 'utf8'),
    },
  });
  peer.start();
  servers.starling = { url: cluster.url };
  servers.node = { url: `http://127.0.0.1:${port}` };
  await until(async () => (await fetch(`${servers.node.url}/readyz`)).ok, { ms: 20_000, what: 'the Node.js server' });
  for (const [name, server] of Object.entries(servers)) {
    server.tokens = await cluster.seed({ users: 40, rooms: 6, members: 8, file: path.join(cluster.folder, `${name}.jsonl`) });
  }
}, { timeout: 120_000 });

after(async () => {
  await peer?.stop('SIGKILL');
  await cluster?.stop();
});

describe('a short run of each script', { concurrency: 2 }, () => {
  for (const name of ['starling', 'node']) {
    // One after the other: they are the same people.
    describe(`against ${name}`, { concurrency: 1 }, () => {
      test('connect-storm: everybody gets in', async () => {
        const { inside } = await k6('connect-storm', servers[name].url, servers[name].tokens);
        assert.equal(inside.passes, 40);
      });

      test('chat: everything arrives, once', async (t) => {
        const { delivered, sends_acked: acked, send_deliver_ms: deliver } = await k6('chat', servers[name].url, servers[name].tokens);
        // Eight in a room: everybody who is there yet hears each send, the sender too.
        assert.ok(delivered.count > acked.passes && delivered.count <= acked.passes * 8);
        t.diagnostic(`${acked.passes} sends, ${delivered.count} deliveries, p95 ${Math.round(deliver['p(95)'])} ms`);
      });

      test('offline: what was missed comes, in order', async () => {
        const { received, caught_up: caughtUp } = await k6('offline', servers[name].url, servers[name].tokens);
        assert.equal(caughtUp.passes, 3);
        assert.ok(received.count >= 3 * 60);
      });
    });
  }

  describe('a run fails', { concurrency: 1 }, () => {
    const failed = (error) => error.code === 99 || assert.fail(error);

    test('when tokens are of another server', async () => {
      const users = readFileSync(servers.starling.tokens, 'utf8').trim().split('\n').map((line) => JSON.stringify({ ...JSON.parse(line), token: 'no.such.token' }));
      const file = path.join(cluster.folder, 'wrong.jsonl');
      writeFileSync(file, users.join('\n'));
      await assert.rejects(k6('connect-storm', servers.starling.url, file, { USERS: 3 }), failed);
    });

    test('when messages are lost or come twice', async () => {
      const require = createRequire(new URL('../../loadtest/peer-node/server.mjs', import.meta.url));
      const { Server } = require('socket.io');
      const http = createServer();
      const io = new Server(http);
      let lastSeq = 0;
      const faults = { lose: true, repeat: false };
      io.on('connection', (socket) => {
        socket.join('room');
        socket.emit('session:ready', { rooms: [{ roomId: 1, lastSeq }] });
        socket.on('message:send', ({ content }, ack) => {
          lastSeq += 1;
          const message = { roomId: 1, seq: lastSeq, id: String(lastSeq), senderId: 0, content };
          ack({ ok: true, message });
          if (!faults.lose || lastSeq !== 3) io.to('room').emit('message:new', message);
          if (faults.repeat && lastSeq === 3) io.to('room').emit('message:new', message);
        });
        socket.on('room:sync', (_, ack) => ack({ ok: true, rooms: [{ roomId: 1, messages: [], lastSeq, more: false }] }));
      });
      http.listen(0, '127.0.0.1');
      await once(http, 'listening');
      const file = path.join(cluster.folder, 'two.jsonl');
      writeFileSync(file, [1, 2].map((userId) => JSON.stringify({ userId, token: 'any', roomIds: [1] })).join('\n'));
      const chat = () => k6('chat', `http://127.0.0.1:${http.address().port}`, file, { USERS: 2, SECONDS: 1, EVERY_MS: 200, SETTLE_MS: 500, QUIET_MS: 300 });
      try {
        await assert.rejects(chat(), (error) => failed(error) && /lost/.test(error.stderr));
        Object.assign(faults, { lose: false, repeat: true });
        lastSeq = 0;
        await assert.rejects(chat(), (error) => failed(error) && /delivered_twice/.test(error.stderr));
        faults.repeat = false;
        lastSeq = 0;
        await chat();
      } finally {
        io.close();
      }
    });
  });
});
