// Connecting: who may, what is answered, and how the limits speak to unmodified clients.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import jwt from 'jsonwebtoken';
import { claims } from '../support/client.mjs';
import { answered, checkError, isTime, refused } from '../support/expect.mjs';
import { UNLIMITED, sendMany, useServer } from '../support/fixture.mjs';
import { openPolling, openRaw, poll } from '../support/raw.mjs';
import { JWT_SECRET } from '../support/server.mjs';

describe('authentication', () => {
  const world = useServer();

  test('session:ready is the first event and tells the rooms with their marks', async () => {
    const { users: [sender, reader], room, clients: [client] } = await world.conversation(2);
    const messages = await sendMany(client, room.id, 3);
    const readerClient = await world.connect(reader);
    await readerClient.ask('message:read', { roomId: room.id, messageId: messages[1].id });
    const again = await world.connect(reader);
    const ready = await again.waitFor('session:ready');
    assert.equal(ready.userId, reader.id);
    assert.equal(typeof ready.instance, 'string');
    assert.ok(isTime(ready.serverTime));
    assert.deepEqual(ready.rooms, [{ roomId: room.id, lastSeq: 3, lastReadSeq: 2 }]);
    assert.deepEqual(again.log.slice(0, 2).map(({ event }) => event), ['connect', 'session:ready']);
    const own = await (await world.connect(sender)).waitFor('session:ready');
    assert.deepEqual(own.rooms, [{ roomId: room.id, lastSeq: 3, lastReadSeq: 0 }]);
  });

  test('a token in the Authorization header serves as well', async () => {
    const user = await world.person();
    for (const transports of [['websocket'], ['polling']]) {
      const client = await world.connect(user, {
        auth: {}, transports, extraHeaders: { Authorization: `Bearer ${user.token}` },
      });
      assert.equal((await client.waitFor('session:ready')).userId, user.id);
    }
  });

  test('a bad, expired, missing or revoked token is refused with the message unauthorized', async () => {
    const user = await world.person();
    const { sub, sid } = claims(user.token);
    const now = Math.floor(Date.now() / 1000);
    const expired = jwt.sign({ sub, sid, iat: now - 7200, exp: now - 3600 }, JWT_SECRET);
    const ended = await world.person();
    assert.equal((await ended.api.post('/auth/logout')).status, 204);
    for (const auth of [{ token: 'rubbish' }, { token: expired }, { token: ended.token }, { token: 7 }, { token: null }, {}, undefined]) {
      const client = await world.connect(user, { auth, wait: false, reconnection: true });
      const error = await client.waitFor('connect_error');
      assert.equal(error.message, 'unauthorized');
      assert.deepEqual(client.all('connect'), []);
      client.close();
    }
  });

  test('a CONNECT of any shape gets an answer, the transport stays open, and a second CONNECT works', async () => {
    const user = await world.person();
    const odd = ['40', '40{}', '40{"token":7}', '40{"token":null}', '40{"token":""}', '40{"token":["x"]}', '40[]', '40null', '40"text"'];
    for (const frame of odd) {
      const raw = await openRaw(world.url);
      raw.send(frame);
      assert.equal(await raw.frame((text) => text.startsWith('44')), '44{"message":"unauthorized"}', frame);
      assert.equal(raw.closed, false, frame);
      await raw.enter(user.token);
      assert.equal((await raw.ask(1, '["presence:set",{"status":"online"}]')).ok, true, frame);
      raw.close();
    }
  });

  test('a namespace that does not exist is refused without harm', async () => {
    const user = await world.person();
    const raw = await openRaw(world.url);
    raw.send(`40/admin,${JSON.stringify({ token: user.token })}`);
    await raw.frame((text) => text.startsWith('44/admin,'));
    await raw.enter(user.token);
    raw.close();
  });

  test('a socket id tells nothing that opens the session of another', async () => {
    const victim = await world.person();
    for (const transports of [['polling'], ['websocket'], ['polling', 'websocket']]) {
      const client = await world.connect(victim, { transports });
      const body = '42["presence:set",{"status":"away"}]';
      const answer = await poll(world.url, { sid: client.socket.id, body });
      assert.equal(answer.status, 400, 'the id of the socket must not be the id of the transport');
      assert.notEqual(client.socket.id, client.socket.io.engine.id);
    }
  });

  test('nobody else learns the id of a socket', async () => {
    const { users: [user], room, clients: [client, friend] } = await world.conversation(2);
    const message = await client.send(room.id, 'hello');
    await client.ask('typing:start', { roomId: room.id });
    await client.ask('presence:set', { status: 'away' });
    await client.ask('reaction:add', { messageId: message.id, emoji: '👍' });
    await friend.ask('presence:query', { userIds: [user.id] });
    await friend.ask('room:join', { roomId: room.id });
    for (const event of ['typing:update', 'presence:update', 'message:updated']) await friend.waitFor(event);
    const heard = JSON.stringify(friend.log.map(({ payload }) => payload));
    assert.ok(!heard.includes(client.socket.id));
  });
});

describe('origins', () => {
  const ALLOWED = 'https://chat.example.test';
  const FOREIGN = 'https://evil.example.test';
  const cors = ({ headers }) => headers.get('access-control-allow-origin');

  describe('by default', () => {
    const world = useServer();

    test('the own origin and clients without an origin come in, every other is refused with 403', async () => {
      assert.equal((await poll(world.url)).status, 200);
      assert.equal((await poll(world.url, { headers: { origin: world.url } })).status, 200);
      assert.equal((await poll(world.url, { headers: { origin: FOREIGN } })).status, 403);
      await assert.rejects(openRaw(world.url, { origin: FOREIGN }), { status: 403 });
      (await openRaw(world.url, { origin: world.url })).close();
    });
  });

  describe('with CORS_ORIGINS', () => {
    const world = useServer({ env: { CORS_ORIGINS: `https://other.example.test,${ALLOWED}`, CONNECT_RATE_PER_INSTANCE: '20' } });

    test('listed origins come in and read every answer, others get 403', async () => {
      const headers = { origin: ALLOWED };
      const user = await world.person();
      assert.equal((await poll(world.url, { headers: { origin: FOREIGN } })).status, 403);
      await assert.rejects(openRaw(world.url, { origin: FOREIGN }), { status: 403 });
      (await openRaw(world.url, headers)).close();
      assert.equal(cors(await poll(world.url, { headers })), ALLOWED, 'the handshake');
      const session = await openPolling(world.url, headers);
      assert.equal(cors(await session.post(`40${JSON.stringify({ token: user.token })}`)), ALLOWED, 'a POST');
      assert.equal(cors(await session.poll()), ALLOWED, 'a poll');
      const unknown = await poll(world.url, { sid: 'no-such-session-id', headers });
      assert.equal(unknown.status, 400);
      assert.equal(cors(unknown), ALLOWED, 'a refusal');
      const preflight = await poll(world.url, {
        method: 'OPTIONS', headers: { ...headers, 'access-control-request-method': 'POST', 'access-control-request-headers': 'content-type' },
      });
      assert.ok([200, 204].includes(preflight.status), `preflight: ${preflight.status}`);
      assert.equal(cors(preflight), ALLOWED, 'a preflight');
    });

    test('a refusal by the connection limit carries the CORS headers too', async () => {
      const answers = await Promise.all(Array.from({ length: 60 }, () => poll(world.url, { headers: { origin: ALLOWED } })));
      const limited = answers.filter(({ status }) => status === 503);
      assert.ok(limited.length > 0, 'none was limited');
      for (const answer of answers) assert.equal(cors(answer), ALLOWED);
    });
  });
});

function assertLimited(answer) {
  assert.equal(answer.status, 503);
  assert.ok(Number(answer.headers.get('retry-after')) >= 1);
  const { error } = JSON.parse(answer.text);
  checkError(error, 'rate_limited');
  assert.equal(error.message, 'Too many connections. Retry later.');
}

describe('the connection limit of the instance', () => {
  const world = useServer({ env: { ...UNLIMITED, CONNECT_RATE_PER_INSTANCE: '5' } });

  test('what is above it gets 503 with Retry-After and the reason', async () => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => poll(world.url)));
    const refusals = answers.filter(({ status }) => status !== 200);
    assert.ok(refusals.length >= 10, `${refusals.length} of 20 refused`);
    refusals.forEach(assertLimited);
    await assert.rejects(async () => {
      for (let i = 0; i < 10; i += 1) (await openRaw(world.url)).close();
    }, { status: 503 });
  });

  test('unmodified clients that were refused come in by themselves', async () => {
    const user = await world.person();
    const clients = await Promise.all(Array.from({ length: 15 }, () => (
      world.connect(user, { wait: false, reconnection: true, transports: ['polling', 'websocket'] }))));
    await Promise.all(clients.map((client) => client.waitFor('session:ready', undefined, { ms: 40_000 })));
    assert.ok(clients.some((client) => client.all('connect_error').length > 0), 'some had been refused');
  });
});

describe('the connection limit of an address', () => {
  const flood = (url, headers) => Promise.all(Array.from({ length: 12 }, (_, i) => poll(url, { headers: headers(i) })));
  const count = (answers, status) => answers.filter((answer) => answer.status === status).length;

  describe('behind a proxy on loopback, which is trusted by default', () => {
    const world = useServer({ env: { CONNECT_RATE_PER_IP: '3' } });

    test('each address in X-Forwarded-For has a limit of its own', async () => {
      assert.equal(count(await flood(world.url, (i) => ({ 'x-forwarded-for': `198.51.100.${i + 1}` })), 200), 12);
      const answers = await flood(world.url, () => ({ 'x-forwarded-for': '203.0.113.7' }));
      assert.ok(count(answers, 503) >= 6, `${count(answers, 503)} of 12 refused`);
      answers.filter(({ status }) => status !== 200).forEach(assertLimited);
    });

    test('what a client writes in front of the header counts for nothing', async () => {
      const answers = await flood(world.url, (i) => ({ 'x-forwarded-for': `192.0.2.${i + 1}, 203.0.113.8` }));
      assert.ok(count(answers, 503) >= 6, `${count(answers, 503)} of 12 refused`);
    });

    test('upgrades, polls and posts do not count', async () => {
      const user = await world.person();
      const headers = { 'x-forwarded-for': '203.0.113.9' };
      const client = await world.connect(user, { transports: ['polling'], extraHeaders: headers });
      for (let i = 0; i < 10; i += 1) await client.ask('presence:set', { status: 'online' });
      const upgraded = await world.connect(user, { transports: ['polling', 'websocket'], extraHeaders: headers });
      await upgraded.ask('presence:set', { status: 'online' });
    });
  });

  describe('when the peer is no trusted proxy', () => {
    const world = useServer({ env: { CONNECT_RATE_PER_IP: '3', TRUSTED_PROXIES: '192.0.2.1/32' } });

    test('X-Forwarded-For is ignored', async () => {
      const answers = await flood(world.url, (i) => ({ 'x-forwarded-for': `198.51.100.${i + 1}` }));
      assert.ok(count(answers, 503) >= 6, `${count(answers, 503)} of 12 refused`);
    });
  });
});

describe('sockets and rooms of one user', () => {
  const world = useServer({ env: { MAX_SOCKETS_PER_USER: '3', MAX_ROOMS_PER_USER: '2' }, instances: 1, nodePeers: 0 });

  test('one socket too many is told why and comes in by itself when another has gone', async () => {
    const user = await world.person();
    const [first] = await world.connectAll([user, user, user]);
    const late = await world.connect(user, { wait: false, reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200 });
    const error = await late.waitFor('error');
    assert.deepEqual([error.event, error.code], ['connect', 'rate_limited']);
    assert.ok(error.message && error.retryAfterMs > 0);
    assert.equal(await late.waitFor('disconnect'), 'transport close');
    assert.deepEqual(late.all('session:ready'), []);
    first.close();
    await late.ready(10_000);
  });

  test('a user in all the rooms that one may be in gets no more, and is told so', async () => {
    const [full, other, third] = await world.people(3);
    const rooms = [await world.group(full, other), await world.group(full)];
    const create = (by, body) => by.api.post('/rooms', body);
    refused(await create(full, { roomType: 'group', name: 'one too many', memberIds: [] }), 409, 'conflict');
    refused(await create(third, { roomType: 'group', name: 'with one who is full', memberIds: [full.id] }), 400, 'validation_failed', ['memberIds']);
    refused(await create(third, { roomType: 'direct', memberIds: [full.id] }), 400, 'validation_failed', ['memberIds']);
    const own = await world.group(third);
    refused(await third.api.post(`/rooms/${own.id}/members`, { userIds: [full.id] }), 400, 'validation_failed', ['userIds']);
    // Leaving one makes place.
    assert.equal((await full.api.del(`/rooms/${rooms[1].id}/members/${full.id}`)).status, 204);
    const direct = await world.direct(full, third);
    const found = answered(await create(third, { roomType: 'direct', memberIds: [full.id] }));
    assert.equal(found.room.id, direct.id, 'the one that is there is found');
  });
});
