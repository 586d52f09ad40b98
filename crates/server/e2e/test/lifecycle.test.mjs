// Starting, being looked at, and stopping.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { api } from '../support/client.mjs';
import { answered } from '../support/expect.mjs';
import { UNLIMITED, useServer } from '../support/fixture.mjs';
import { openRaw, poll } from '../support/raw.mjs';
import { JWT_SECRET, run } from '../support/server.mjs';
import { until } from '../support/wait.mjs';

describe('a running server', () => {
  const world = useServer();
  const get = (path) => fetch(`${world.url}${path}`, { headers: { connection: 'close' } });

  test('tells its health, its readiness and its metrics without a token', async () => {
    assert.equal((await get('/healthz')).status, 200);
    assert.equal((await get('/readyz')).status, 200);
    const metrics = await get('/metrics');
    assert.equal(metrics.status, 200);
    assert.match(metrics.headers.get('content-type'), /^text\/plain/);
    assert.match(await metrics.text(), /^# TYPE \w+ (counter|gauge|histogram)$/m);
  });

  test('takes as many open files as the system allows', async () => {
    const limits = await readFile(`/proc/${world.server.pid}/limits`, 'utf8');
    const [, soft, hard] = /^Max open files +(\d+) +(\d+)/m.exec(limits);
    assert.equal(soft, hard);
  });

  test('counts what leaves by which way, and what waits', async () => {
    const { clients: [sender], room } = await world.conversation(2, { at: 0 });
    await sender.send(room.id, 'counted');
    const metrics = await (await get('/metrics')).text();
    const value = (name) => {
      const line = metrics.split('\n').find((text) => text.startsWith(`${name} `));
      assert.ok(line, `${name} is missing in\n${metrics}`);
      return Number(line.split(' ').at(-1));
    };
    assert.ok(value('starling_frames_total{way="direct"}') > 0);
    assert.ok(value('starling_socket_writes_total') > 0);
    assert.equal(value('starling_waiting_bytes'), 0);
    assert.ok(value('starling_connections{transport="websocket"}') >= 2);
    assert.ok(value('starling_direct_sessions') >= 2);
    assert.ok(value('starling_socket_lists') >= 3, 'the room, and what each user has');
    for (const name of ['starling_frames_total{way="engine"}', 'starling_merged_frames_total', 'starling_droppable_dropped_total',
      'starling_upgrades_total', 'starling_slow_readers_closed_total{why="limit"}', 'starling_slow_readers_closed_total{why="timeout"}']) {
      assert.ok(Number.isInteger(value(name)), name);
    }
  });

  test('serves its OpenAPI document and the page', async () => {
    const openapi = await get('/api/openapi.json');
    assert.equal(openapi.status, 200);
    const { paths } = await openapi.json();
    for (const path of ['/auth/login', '/rooms', '/messages/search']) {
      assert.ok(Object.keys(paths).some((documented) => documented.endsWith(path)), path);
    }
    const page = await get('/');
    assert.equal(page.status, 200);
    assert.match(page.headers.get('content-type'), /^text\/html/);
  });
});

describe('SIGTERM', () => {
  const world = useServer({ env: { ...UNLIMITED, DRAIN_TIMEOUT_SECONDS: '5' } });

  test('tells clients to come back, closes their transports, and ends with exit code 0', async () => {
    const { clients } = await world.conversation(2);
    clients.push(await world.connect(clients[0].user, { transports: ['polling'] }));
    const started = Date.now();
    const ended = world.server.kill('SIGTERM');
    for (const client of clients) {
      const { reconnectInMs } = await client.waitFor('server:draining');
      assert.ok(Number.isInteger(reconnectInMs) && reconnectInMs >= 0);
    }
    for (const path of ['/readyz', '/socket.io/?EIO=4&transport=polling']) {
      const status = await fetch(`${world.url}${path}`, { headers: { connection: 'close' } }).then((answer) => answer.status, () => 503);
      assert.equal(status, 503, `${path} while draining`);
    }
    for (const client of clients) {
      const reason = await client.waitFor('disconnect', undefined, { ms: 8_000 });
      assert.ok(['transport close', 'transport error'].includes(reason), reason);
      if (client !== clients.at(-1)) assert.equal(reason, 'transport close');
    }
    assert.deepEqual(await ended, { code: 0, signal: null });
    assert.ok(Date.now() - started < 7_000, 'within DRAIN_TIMEOUT_SECONDS');
    await world.server.start();
  });

  test('who was about to connect when it began does not hold it up', async () => {
    const user = await world.person();
    const client = await world.connect(user, { at: 0 });
    const late = await openRaw(world.server.url);
    const ended = world.server.kill('SIGTERM');
    await client.waitFor('server:draining');
    late.send(`40${JSON.stringify({ token: user.token })}`);
    await late.frame((frame) => frame.startsWith('42["server:draining"'));
    await late.waitClosed();
    assert.deepEqual(await ended, { code: 0, signal: null });
    assert.doesNotMatch(world.server.log, /cut off/);
    await world.server.start();
  });

  test('unmodified clients come back by themselves to the next server', async () => {
    const user = await world.person();
    const client = await world.connect(user, { reconnection: true });
    const since = client.mark();
    await world.server.restart('SIGTERM');
    await client.waitFor('session:ready', undefined, { since, ms: 20_000 });
  });

  test('a send that was acknowledged while draining is stored', async () => {
    const { users: [user], room, clients: [client] } = await world.conversation(1);
    const acknowledged = [];
    for (let i = 0; i < 200; i += 1) {
      client.socket.emit('message:send', { roomId: room.id, content: `${i}` }, ({ ok, message }) => ok && acknowledged.push(message.id));
    }
    await world.server.restart('SIGTERM');
    const { messages } = answered(await user.api.get(`/rooms/${room.id}/messages?after=0&limit=100`));
    const { messages: rest } = answered(await user.api.get(`/rooms/${room.id}/messages?after=100&limit=100`));
    const stored = new Set([...messages, ...rest].map(({ id }) => id));
    acknowledged.forEach((id) => assert.ok(stored.has(id)));
  });

  test('the presence of those whom a crash cut off does not stay online', async () => {
    const { users: [user, friend] } = await world.conversation(2);
    await world.server.restart('SIGKILL');
    const client = await world.connect(friend);
    // Several instances believe a dead one for a while: 35 s in the contract.
    await until(async () => {
      const { presence } = await client.ask('presence:query', { userIds: [user.id] });
      return presence[0].status === 'offline';
    }, { ms: 35_000, every: 200, what: 'the dead to be offline' });
  });
});

describe('a second SIGTERM', () => {
  const world = useServer({ instances: 1, nodePeers: 0, proxyDatabase: true, env: { DRAIN_TIMEOUT_SECONDS: '60' } });

  test('ends at once what the first waits for', async () => {
    const { room, clients: [client] } = await world.conversation(1);
    world.server.proxy.silence();
    client.socket.emit('message:send', { roomId: room.id, content: 'on its way into a database that hangs' });
    await until(async () => /^starling_batch_messages_count [1-9]/m.test(await (await fetch(`${world.url}/metrics`)).text()), {
      what: 'the send to be on its way',
    });
    const ended = world.server.kill('SIGTERM', 60_000);
    await client.waitFor('server:draining');
    let over = false;
    ended.then(() => { over = true; });
    await client.silence('disconnect', { ms: 500 });
    assert.equal(over, false, 'it waits for the send');
    await world.server.kill('SIGTERM', 60_000);
    assert.deepEqual(await ended, { code: 0, signal: null });
    assert.deepEqual(client.all('message:new'), []);
  });
});

describe('the command line', () => {
  const good = { DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none', JWT_SECRET };

  test('--help teaches every command and variable', async () => {
    const { code, stdout } = await run(['--help']);
    assert.equal(code, 0);
    for (const word of ['serve', 'dev', 'migrate', 'seed', 'DATABASE_URL', 'JWT_SECRET']) assert.ok(stdout.includes(word), word);
    const serve = await run(['serve', '--help']);
    assert.equal(serve.code, 0);
  });

  test('an unknown command is refused with exit code 2', async () => {
    const { code, stderr } = await run(['sevre']);
    assert.equal(code, 2);
    assert.match(stderr, /sevre/);
  });

  const shown = {
    BIND_ADDR: ['nowhere', '127.0.0.1:99999'],
    CONNECT_RATE_PER_INSTANCE: ['-1', 'many'],
    CONNECT_RATE_PER_IP: ['1.5'],
    MESSAGE_RATE_PER_USER: ['ten'],
    DB_MAX_CONNECTIONS: ['0', 'x'],
    DB_MIN_CONNECTIONS: ['-5'],
    RECEIPT_ROWS_MAX_MEMBERS: ['few'],
    MAX_PAYLOAD_BYTES: ['64k'],
    DRAIN_TIMEOUT_SECONDS: ['soon'],
    CORS_ORIGINS: ['not an origin'],
    TRUSTED_PROXIES: ['my-proxy'],
    LOG_FORMAT: ['xml'],
    ADAPTER: ['pigeon'],
  };
  for (const [variable, values] of Object.entries(shown)) {
    test(`a bad ${variable} is named with its value and what would be right, exit code 2`, async () => {
      for (const value of values) {
        const { code, stderr } = await run(['serve'], { ...good, [variable]: value });
        assert.equal(code, 2, stderr);
        assert.ok(stderr.includes(variable) && stderr.includes(value), stderr);
      }
    });
  }

  test('what is missing or weak among the secrets is named without showing it, exit code 2', async () => {
    for (const [variable, value] of [['JWT_SECRET', undefined], ['JWT_SECRET', 'short-and-secret'], ['DATABASE_URL', undefined], ['DATABASE_URL', 'mysql://secret-word@x/y']]) {
      const env = { ...good, [variable]: value };
      if (value === undefined) delete env[variable];
      const { code, stderr } = await run(['serve'], env);
      assert.equal(code, 2, stderr);
      assert.ok(stderr.includes(variable), stderr);
      if (value) assert.ok(!stderr.includes(value), 'a secret is not printed');
    }
  });

  test('several bad values are all named at once', async () => {
    const { code, stderr } = await run(['serve'], { ...good, BIND_ADDR: 'nowhere', ADAPTER: 'pigeon', LOG_FORMAT: 'xml' });
    assert.equal(code, 2);
    for (const name of ['BIND_ADDR', 'ADAPTER', 'LOG_FORMAT']) assert.ok(stderr.includes(`${name}=`), stderr);
  });
});

describe('seed', () => {
  const world = useServer();

  test('makes users whose tokens work and who are in their rooms', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'starling-seed-'));
    try {
      const file = join(folder, 'tokens.jsonl');
      const { code, stderr } = await run(
        ['seed', '--users', '6', '--rooms', '3', '--members', '4', '--tokens-out', file],
        { JWT_SECRET, DATABASE_URL: world.server.databaseUrl },
      );
      assert.equal(code, 0, stderr);
      const users = (await readFile(file, 'utf8')).trim().split('\n').map((line) => JSON.parse(line));
      assert.equal(users.length, 6);
      const memberships = users.flatMap(({ roomIds }) => roomIds);
      assert.equal(memberships.length, 12);
      for (const { userId, username, token, roomIds } of users) {
        assert.equal(typeof username, 'string');
        const { rooms } = answered(await api(world.url, token).get('/rooms'));
        assert.deepEqual(rooms.map(({ id }) => id).sort(), [...roomIds].sort());
        const client = await world.connect({ username, token });
        assert.equal((await client.waitFor('session:ready')).userId, userId);
      }
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  test('migrate on a migrated database changes nothing and succeeds', async () => {
    const { code, stderr } = await run(['migrate'], { JWT_SECRET, DATABASE_URL: world.server.databaseUrl });
    assert.equal(code, 0, stderr);
    assert.equal((await poll(world.url)).status, 200);
  });
});
