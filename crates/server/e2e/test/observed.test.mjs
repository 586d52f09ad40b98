// What the server tells of itself: metrics, the log, traces. Nothing in it is private.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { describe, test } from 'node:test';
import { UNLIMITED, useServer } from '../support/fixture.mjs';
import { freePort, run } from '../support/server.mjs';
import { until } from '../support/wait.mjs';

const get = (url, headers = {}) => fetch(url, { headers: { connection: 'close', ...headers } });

/** `{name: [{labels, value}]}` */
async function metrics(url) {
  const found = {};
  for (const line of (await (await get(`${url}/metrics`)).text()).split('\n')) {
    const [, name, labels, value] = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    if (name) (found[name] ??= []).push({ labels: labels ?? '', value: Number(value) });
  }
  return found;
}

describe('metrics', () => {
  const world = useServer({ env: UNLIMITED, instances: 1, nodePeers: 0 });
  const value = async (name, labels = '') => (await metrics(world.url))[name]
    ?.filter((one) => one.labels.includes(labels)).reduce((sum, one) => sum + one.value, 0) ?? 0;

  test('counters begin at 0, and count what happens', async () => {
    const before = await metrics(world.url);
    for (const name of ['starling_gaps_found_total', 'starling_gaps_healed_total', 'starling_sync_required_total', 'starling_database_errors_total']) {
      assert.deepEqual(before[name]?.map((one) => one.value), [0], name);
    }
    assert.equal(before.starling_draining[0].value, 0);
    assert.match(before.starling_build_info[0].labels, /version="\d+\.\d+\.\d+"/);
    const { room, clients: [a] } = await world.conversation(2);
    const polling = await world.connect(await world.person(), { transports: ['polling'] });
    for (let n = 0; n < 3; n += 1) await a.send(room.id, 'hello');
    await a.refused('not_found', 'message:send', { roomId: 2_000_000_000, content: 'nowhere' });
    assert.equal(await value('starling_connections', 'transport="websocket"'), 2);
    assert.equal(await value('starling_connections', 'transport="polling"'), 1);
    assert.equal(await value('starling_messages_stored_total'), 3);
    assert.equal(await value('starling_send_commit_seconds_count'), 3);
    assert.equal(await value('starling_commit_delivery_seconds_count'), 3);
    assert.equal(await value('starling_events_total', 'event="message:send",result="ok"'), 3);
    assert.equal(await value('starling_events_total', 'event="message:send",result="not_found"'), 1);
    assert.ok(await value('starling_handshakes_total', 'result="accepted"') >= 3);
    assert.equal(await value('starling_connects_total', 'result="ok"'), 3);
    assert.ok(await value('starling_postgres_seconds_count') > 3);
    assert.ok(await value('starling_flush_seconds_count') > 0);
    assert.equal(await value('starling_pool_waiting'), 0);
    polling.close();
  });

  test('refused handshakes are counted by their reason', async () => {
    assert.equal((await get(`${world.url}/socket.io/?EIO=4&transport=polling`, { origin: 'https://elsewhere.example' })).status, 403);
    assert.equal((await get(`${world.url}/socket.io/?EIO=3&transport=polling`)).status, 400);
    assert.equal(await value('starling_handshakes_total', 'forbidden'), 1);
    assert.equal(await value('starling_handshakes_total', 'invalid'), 1);
    await assert.rejects(world.connect({ token: 'nonsense' }));
    assert.equal(await value('starling_connects_total', 'unauthorized'), 1);
  });
});

describe('metrics at an address of their own', () => {
  let address;
  const env = { ...UNLIMITED, get METRICS_ADDR() { return address; } };
  test.before(async () => { address = `127.0.0.1:${await freePort()}`; });
  const world = useServer({ env, instances: 1, nodePeers: 0 });

  test('are there, and nowhere else', async () => {
    assert.equal((await get(`${world.url}/metrics`)).status, 404);
    assert.ok((await metrics(`http://${address}`)).starling_connections);
    assert.equal((await get(`http://${address}/api/rooms`)).status, 404);
  });

  test('an address that is none is told before a port is bound', async () => {
    const { code, stderr } = await run(['serve'], {
      DATABASE_URL: 'postgres://localhost/starling', JWT_SECRET: 'x'.repeat(40),
      METRICS_ADDR: 'everywhere', OTEL_EXPORTER_OTLP_ENDPOINT: 'https://user:hunter2@collector',
    });
    assert.equal(code, 2);
    assert.match(stderr, /METRICS_ADDR=everywhere/);
    assert.match(stderr, /OTEL_EXPORTER_OTLP_ENDPOINT/);
    assert.doesNotMatch(stderr, /hunter2/);
  });
});

describe('log and traces', () => {
  // What a collector gets; it answers as one does.
  const spans = [];
  const collector = http.createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      spans.push({ path: request.url, body: Buffer.concat(chunks).toString('latin1') });
      response.writeHead(200, { 'content-type': 'application/x-protobuf' }).end();
    });
  });
  let endpoint;
  test.before(async () => {
    collector.listen(0, '127.0.0.1');
    await once(collector, 'listening');
    endpoint = `http://127.0.0.1:${collector.address().port}`;
  });
  test.after(() => { collector.close(); collector.closeAllConnections(); });
  const env = {
    ...UNLIMITED, RUST_LOG: 'trace', LOG_FORMAT: 'json', OTEL_BSP_SCHEDULE_DELAY: '100',
    get OTEL_EXPORTER_OTLP_ENDPOINT() { return endpoint; },
  };
  const world = useServer({ env, instances: 2, nodePeers: 0, withRedis: true });
  const lines = (at) => world.server.all[at].log.split('\n').filter((line) => /^\{.*\}$/.test(line)).map((line) => JSON.parse(line));

  test('an event is one line with its connection, and one trace from the event to the publication', async () => {
    const [user, other] = await world.people(2);
    const room = await world.group(user, other);
    const client = await world.connect(user, { at: 0, extraHeaders: { 'x-request-id': 'handshake-7' } });
    await client.send(room.id, 'hello');
    const found = (test) => until(() => lines(0).find(test), { what: 'a line' });
    const event = await found(({ message, spans: all }) => message === 'event' && all?.some((span) => span.event === 'message:send'));
    assert.equal(event.result, 'ok');
    assert.ok(event.micros > 0);
    const { connection } = event.spans.find((span) => span.name === 'event');
    const connect = await found(({ message, spans: all }) => message === 'connect' && all?.some((span) => span.connection === connection));
    // The connection names the request by which it began.
    assert.equal(connect.spans.find((span) => span.name === 'connection').request, 'handshake-7');
    client.close();
    for (const name of ['connection', 'event', 'commit', 'publish', 'db.messages.append']) {
      await until(() => spans.some(({ body }) => body.includes(name)), { ms: 10_000, what: `a span named ${name}` });
    }
    assert.ok(spans.every(({ path, body }) => path === '/v1/traces' && body.includes('starling')));
  });

  test('a request has an id, its own or that of the proxy in front', async () => {
    const named = await get(`${world.url}/healthz`, { 'x-request-id': 'from-the-proxy_1' });
    assert.equal(named.headers.get('x-request-id'), 'from-the-proxy_1');
    const odd = await get(`${world.url}/healthz`, { 'x-request-id': 'a b{}"' });
    assert.match(odd.headers.get('x-request-id'), /^[0-9a-f]{32}$/);
    const line = await until(() => lines(0).find(({ message, spans: all }) => message === 'request' && all?.some(({ id }) => id === 'from-the-proxy_1')), { what: 'the line' });
    assert.equal(line.status, 200);
    assert.equal(line.route, '/healthz');
  });

  test('nothing private is in any line or span, however much is logged', async () => {
    const secret = `geheim${Math.random().toString(36).slice(2)}`;
    const address = '203.0.113.77';
    const headers = { 'x-forwarded-for': address, 'content-type': 'application/json', connection: 'close' };
    const post = (path, body, more = {}) => fetch(`${world.url}/api${path}`, { method: 'POST', headers: { ...headers, ...more }, body: JSON.stringify(body) });
    const account = { username: `u_${secret}`.slice(0, 20), email: `${secret}@example.com`, password: `pw-${secret}-pw`, displayName: 'Somebody' };
    const registered = await post('/auth/register', account);
    assert.equal(registered.status, 201);
    const { accessToken, refreshToken, user } = await registered.json();
    await post('/auth/login', { email: account.email, password: `wrong-${secret}` });
    await post('/auth/login', { email: account.email, password: account.password });
    await post('/auth/login', `broken ${secret}`);
    const renewed = await (await post('/auth/refresh', { refreshToken })).json();
    const second = await post('/auth/refresh', { refreshToken: `x${refreshToken}` });
    assert.equal(second.status, 401);
    const authorization = { authorization: `Bearer ${renewed.accessToken}` };
    const { room: { id: roomId } } = await (await post('/rooms', { roomType: 'group', name: `room ${secret}`, memberIds: [] }, authorization)).json();
    await get(`${world.url}/api/messages/search?q=${secret}`, { ...headers, ...authorization });
    await get(`${world.url}/api/users?search=${secret}`, { ...headers, ...authorization });
    await get(`${world.url}/${secret}?token=${renewed.accessToken}`, headers);
    for (const transports of [['websocket'], ['polling']]) {
      for (const at of [0, 1]) {
        const client = await world.connect({ ...user, token: renewed.accessToken }, { at, transports, extraHeaders: { 'x-forwarded-for': address }, query: { token: renewed.accessToken } });
        const message = await client.send(roomId, `text ${secret}`, { metadata: { note: secret } });
        await client.ask('message:edit', { messageId: message.id, content: `edited ${secret}` });
        await client.ask('reaction:add', { messageId: message.id, emoji: '🦜' });
        await client.refused('validation_failed', 'message:send', { roomId, content: { secret } });
        await client.refused('validation_failed', `odd:${secret}`, { secret });
        client.close();
      }
    }
    await world.connect({ token: `${secret}.${secret}.${secret}` }).catch(() => {});
    const sent = spans.length;
    await until(() => spans.length > sent + 1, { ms: 10_000, what: 'more spans' });
    const texts = [...world.server.all.map(({ log }) => log), ...spans.map(({ body }) => body)];
    assert.ok(texts[0].includes('"message":"event"') && texts[1].includes('"message":"event"'));
    const [header, payload, signature] = renewed.accessToken.split('.');
    for (const [what, text] of Object.entries({
      secret, address, refreshToken, renewed: renewed.refreshToken, payload, signature, token: accessToken, header: `${header}.`, parrot: '🦜',
    })) {
      for (const told of texts) {
        const at = told.indexOf(text);
        assert.equal(at, -1, `${what}: ${told.slice(Math.max(0, at - 300), at + 100)}`);
      }
    }
  });
});
