// Two peers on one Redis and one database, one with each Redis client, and unmodified clients on both.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { after, afterEach, before, describe, test } from 'node:test';
import { createAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';
import {
  REDIS_URL, closeClients, connect, group, people, person, pool, startPeer, token,
} from './support.mjs';

const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
const seqs = (messages) => messages.map(({ seq }) => seq);

after(() => pool.end());

/** Starts a peer with each Redis client before the tests of the scope: `peers[0]` and `peers[1]`. */
function usePeers(env) {
  const peers = [];
  before(async () => {
    peers.push(...await Promise.all(['redis', 'ioredis'].map((client, i) => (
      startPeer({ INSTANCE_ID: `peer-${i}-${process.pid}`, REDIS_CLIENT: client, ...env })))));
  });
  afterEach(closeClients);
  after(async () => {
    const exits = await Promise.all(peers.map((peer) => peer.stop()));
    assert.deepEqual(exits, peers.map(() => ({ code: 0, signal: null })), 'SIGTERM ends a peer cleanly');
  });
  return peers;
}

/** A group with a connected member at each peer. */
async function conversation(peers) {
  const users = await people(2);
  const roomId = await group(...users);
  const clients = await Promise.all(users.map((user, i) => connect(peers[i], user)));
  return { users, roomId, clients };
}

describe('two peers', () => {
  const peers = usePeers();

  test('a connection is greeted, in its rooms, and known to the cluster', async () => {
    const user = await person();
    const roomId = await group(user);
    const client = await connect(peers[0], user);
    const { serverTime, ...ready } = await client.waitFor('session:ready');
    assert.deepEqual(ready, {
      userId: user.id, instance: `peer-0-${process.pid}`, rooms: [{ roomId, lastSeq: 0, lastReadSeq: 0 }],
    });
    assert.match(serverTime, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    const { rows } = await pool.query('SELECT user_id, server_instance FROM user_sessions WHERE socket_id = $1', [client.socket.id]);
    assert.deepEqual(rows, [{ user_id: user.id, server_instance: ready.instance }]);

    // A further server of the cluster sees the socket and moves it about.
    const pub = await createClient({ url: REDIS_URL }).connect();
    const sub = await pub.duplicate().connect();
    const other = new Server(createServer(), { adapter: createAdapter(pub, sub) });
    try {
      await sub.ping();
      const [socket] = await other.in(`user:${user.id}`).fetchSockets();
      assert.equal(socket.id, client.socket.id);
      assert.deepEqual(socket.data, { userId: user.id, username: user.username, sessionId: user.sessionId });
      const rooms = [socket.id, `user:${user.id}`, `session:${user.sessionId}`, `room:${roomId}`];
      assert.deepEqual([...socket.rooms].sort(), rooms.sort());
      other.in(`user:${user.id}`).socketsJoin('room:0');
      other.to('room:0').emit('message:new', { seq: 1 });
      await client.waitFor('message:new');
      other.in(`session:${user.sessionId}`).disconnectSockets();
      assert.equal(await client.waitFor('disconnect'), 'io server disconnect');
    } finally {
      await other.close();
      await Promise.all([pub.close(), sub.close()]);
    }
  });

  test('a message reaches the clients of both peers, with all its fields', async () => {
    const { users: [sender], roomId, clients } = await conversation(peers);
    const clientId = randomUUID();
    const metadata = { width: 3, nested: { list: [1, null, 'ä'] } };
    const message = await clients[0].send(roomId, ' Hello 🦜', { clientId, messageType: 'image', metadata });
    const { id, createdAt, receipts, ...rest } = message;
    assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.match(createdAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    assert.deepEqual(receipts, { recipients: 1, delivered: 0, read: 0 });
    assert.deepEqual(rest, {
      roomId, senderId: sender.id, seq: 1, content: ' Hello 🦜', messageType: 'image', editedAt: null, deletedAt: null,
      clientId, replyTo: null, metadata, reactions: [],
    });
    for (const client of clients) assert.deepEqual(await client.waitFor('message:new'), { id, createdAt, ...rest });
  });

  test('seq has no gap and no repeat while both peers write', async () => {
    const { roomId, clients } = await conversation(peers);
    const each = 150;
    const sent = await Promise.all(clients.map((client, i) => (
      Promise.all(range(1, each).map((n) => client.send(roomId, `${i}: ${n}`))))));
    assert.deepEqual(seqs(sent.flat()).sort((a, b) => a - b), range(1, 2 * each));
    for (const [i, client] of clients.entries()) {
      assert.deepEqual(seqs(sent[i]), seqs(sent[i]).sort((a, b) => a - b), 'each socket in its own order');
      await client.waitFor('message:new', undefined, 2 * each);
      const heard = client.all('message:new');
      assert.deepEqual(seqs(heard).sort((a, b) => a - b), range(1, 2 * each));
      for (const [j, messages] of sent.entries()) {
        const fromPeer = heard.filter(({ content }) => content.startsWith(`${j}:`));
        assert.deepEqual(seqs(fromPeer), seqs(messages), 'each peer publishes in the order of seq');
      }
    }
    const { rows } = await pool.query(
      `SELECT last_seq, (SELECT count(*)::int FROM message_receipts r JOIN messages m ON m.id = r.message_id WHERE m.room_id = $1) AS rows
       FROM rooms WHERE id = $1`,
      [roomId],
    );
    assert.deepEqual(rows.map((row) => [Number(row.last_seq), row.rows]), [[2 * each, 2 * each]]);
  });

  test('the same clientId answers the first message, at whatever peer and however often', async () => {
    const { users: [sender, other], roomId, clients: [client, listener] } = await conversation(peers);
    const second = await connect(peers[1], sender);
    const elsewhere = await group(sender, other);
    const clientId = randomUUID();
    const answers = await Promise.all(range(0, 11).map((n) => [client, second][n % 2].send(roomId, 'once', { clientId })));
    assert.equal(new Set(answers.map(({ id }) => id)).size, 1);
    await client.refused('conflict', 'message:send', { roomId, content: 'another', clientId });
    await second.refused('conflict', 'message:send', { roomId: elsewhere, content: 'once', clientId });
    await client.ask('message:edit', { messageId: answers[0].id, content: 'edited' });
    assert.equal((await second.send(roomId, 'once', { clientId: clientId.toUpperCase() })).content, 'edited');
    assert.equal((await listener.send(roomId, 'once', { clientId })).seq, 2, "another user's clientId is another one");
    await listener.waitFor('message:new', ({ seq }) => seq === 2);
    assert.equal(listener.all('message:new').length, 2, 'a repeat broadcasts nothing');
    // Stored at both peers at once, for different rooms: one of them is first.
    const raced = randomUUID();
    const both = await Promise.all([[client, roomId], [second, elsewhere]].map(([from, room]) => (
      from.emitAck('message:send', { roomId: room, content: 'once', clientId: raced }))));
    assert.deepEqual(both.map(({ ok, error }) => (ok ? 'ok' : error.code)).sort(), ['conflict', 'ok']);
  });

  test('delivered and read reach the sender at the other peer', async () => {
    const { users: [, reader], roomId, clients: [sender, client] } = await conversation(peers);
    const second = await connect(peers[0], reader);
    const ids = (await Promise.all(range(1, 3).map((n) => sender.send(roomId, `message ${n}`)))).map(({ id }) => id);
    await client.ask('message:delivered', { roomId, messageIds: [ids[0], randomUUID()] });
    const { at, ...delivered } = await sender.waitFor('message:status');
    assert.match(at, /Z$/);
    assert.deepEqual(delivered, { roomId, messageIds: [ids[0]], userId: reader.id, status: 'delivered' });
    assert.equal((await client.ask('message:read', { roomId, messageId: ids[1] })).lastReadSeq, 2);
    const read = await sender.waitFor('message:status', ({ status }) => status === 'read');
    assert.deepEqual([read.messageIds, read.userId], [ids.slice(0, 2), reader.id]);
    assert.deepEqual(await second.waitFor('room:read'), { roomId, lastReadSeq: 2 });
    assert.equal((await client.ask('message:read', { roomId, messageId: ids[0] })).lastReadSeq, 2, 'it never goes back');
    assert.deepEqual(client.all('room:read'), [], 'the socket that read is not told');
    const { rooms: [{ messages }] } = await sender.ask('room:sync', { rooms: [{ roomId, afterSeq: 0 }] });
    const counts = messages.map(({ receipts }) => [receipts.recipients, receipts.delivered, receipts.read]);
    assert.deepEqual(counts, [[1, 1, 1], [1, 1, 1], [1, 0, 0]]);
    const { rooms: [theirs] } = await client.ask('room:sync', { rooms: [{ roomId, afterSeq: 0 }] });
    assert.ok(theirs.messages.every((message) => !('receipts' in message)), "others' receipts stay hidden");
  });

  test('edits and deletions reach both peers', async () => {
    const { roomId, clients: [owner, member] } = await conversation(peers);
    const message = await member.send(roomId, 'first words', { metadata: { a: 1 } });
    const { message: edited } = await member.ask('message:edit', { messageId: message.id, content: 'better words' });
    assert.deepEqual({ ...edited, content: message.content, editedAt: null }, message);
    await owner.refused('forbidden', 'message:edit', { messageId: message.id, content: 'x' });
    const { receipts, ...heard } = edited;
    assert.deepEqual(await owner.waitFor('message:updated'), heard);
    await member.refused('forbidden', 'message:delete', { messageId: (await owner.send(roomId, "the owner's")).id });
    for (let i = 0; i < 2; i += 1) await owner.ask('message:delete', { messageId: message.id });
    const gone = await member.waitFor('message:updated', ({ deletedAt }) => deletedAt);
    assert.deepEqual([gone.content, gone.metadata, gone.reactions, gone.seq], ['', {}, [], 1]);
    await member.refused('conflict', 'message:edit', { messageId: message.id, content: 'back' });
    const stranger = await connect(peers[0], await person());
    for (const event of ['message:edit', 'message:delete']) {
      await stranger.refused('not_found', event, { messageId: message.id, content: 'x' });
    }
    const marker = await member.send(roomId, 'a marker');
    await owner.waitFor('message:new', ({ id }) => id === marker.id);
    assert.equal(owner.all('message:updated').length, 2, 'deleting again broadcasts nothing');
  });

  test('typing crosses to other users only, is debounced, and stops by itself', async () => {
    const { users: [typist], roomId, clients: [client, other] } = await conversation(peers);
    const second = await connect(peers[1], typist);
    for (let i = 0; i < 3; i += 1) await client.ask('typing:start', { roomId });
    assert.deepEqual(await other.waitFor('typing:update'), { roomId, userId: typist.id, isTyping: true });
    await other.waitFor('typing:update', ({ isTyping }) => !isTyping);
    assert.deepEqual(other.all('typing:update').map(({ isTyping }) => isTyping), [true, false]);
    await client.ask('typing:start', { roomId });
    await client.ask('typing:stop', { roomId });
    await client.ask('typing:stop', { roomId });
    await other.waitFor('typing:update', undefined, 4);
    assert.deepEqual(other.all('typing:update').map(({ isTyping }) => isTyping), [true, false, true, false]);
    assert.deepEqual([client, second].flatMap((socket) => socket.all('typing:update')), []);
  });

  test('typing ends when the last socket of the user closes', async () => {
    const { users: [typist], roomId, clients: [client, other] } = await conversation(peers);
    const second = await connect(peers[1], typist);
    await client.ask('typing:start', { roomId });
    second.socket.disconnect();
    client.socket.disconnect();
    await other.waitFor('typing:update', ({ isTyping }) => !isTyping);
  });

  test('a stranger to the room finds nothing, and sync leaves it out', async () => {
    const { users, roomId, clients: [member] } = await conversation(peers);
    const message = await member.send(roomId, 'private');
    const stranger = await connect(peers[1], await person());
    for (const [event, payload] of [
      ['message:send', { content: 'x' }], ['message:read', { messageId: message.id }],
      ['message:delivered', { messageIds: [message.id] }], ['typing:start', {}], ['typing:stop', {}],
    ]) await stranger.refused('not_found', event, { roomId, ...payload });
    assert.deepEqual((await stranger.ask('room:sync', { rooms: [{ roomId, afterSeq: 0 }] })).rooms, []);
    await pool.query('UPDATE room_members SET left_at = now() WHERE room_id = $1 AND user_id = $2', [roomId, users[0].id]);
    await member.refused('not_found', 'message:send', { roomId, content: 'gone' });
  });

  test('sync answers at most 100 messages a room and says when there is more', async () => {
    const { users, roomId, clients: [client, member] } = await conversation(peers);
    const empty = await group(...users);
    await Promise.all(range(1, 130).map((n) => client.send(roomId, `message ${n}`)));
    const { rooms } = await member.ask('room:sync', {
      rooms: [{ roomId: empty, afterSeq: 0 }, { roomId, afterSeq: 5 }, { roomId, afterSeq: 100 }],
    });
    assert.deepEqual(rooms[0], { roomId: empty, messages: [], lastSeq: 0, more: false });
    assert.deepEqual([rooms.length, rooms[1].roomId, rooms[1].lastSeq, rooms[1].more], [2, roomId, 130, true]);
    assert.deepEqual(seqs(rooms[1].messages), range(6, 105));
    const { rooms: [rest] } = await member.ask('room:sync', { rooms: [{ roomId, afterSeq: 105 }] });
    assert.deepEqual([seqs(rest.messages), rest.more], [range(106, 130), false]);
  });

  test('what is ill-formed is refused with a code, by acknowledgement or error event', async () => {
    const { roomId, clients: [client] } = await conversation(peers);
    const send = { roomId, content: 'x' };
    for (const [event, payload] of [
      ['message:send', undefined], ['message:send', null], ['message:send', [send]], ['message:send', 'x'],
      ['message:send', { roomId }], ['message:send', { ...send, roomId: String(roomId) }],
      ['message:send', { ...send, roomId: 2 ** 31 }], ['message:send', { ...send, content: '' }],
      ['message:send', { ...send, content: '🦜'.repeat(4_001) }], ['message:send', { ...send, content: 'nul\0' }],
      ['message:send', { ...send, content: '\ud800' }], ['message:send', { ...send, messageType: 'system' }],
      ['message:send', { ...send, clientId: 'x' }], ['message:send', { ...send, replyTo: randomUUID() }],
      ['message:send', { ...send, metadata: [] }], ['message:send', { ...send, metadata: { a: 'x'.repeat(4_096) } }],
      ['message:send', { ...send, metadata: { a: 'nul\0' } }], ['message:send', { ...send, metadata: { a: Buffer.of(1) } }],
      ['message:delivered', { roomId, messageIds: [] }], ['message:delivered', { roomId, messageIds: range(0, 100).map(() => randomUUID()) }],
      ['message:read', { roomId, messageId: 5 }], ['message:edit', { messageId: 'x', content: 'x' }],
      ['message:delete', {}], ['typing:start', {}], ['room:sync', { rooms: [] }],
      ['room:sync', { rooms: [{ roomId, afterSeq: -1 }] }], ['no:such', {}], ['constructor', {}],
    ]) await client.refused('validation_failed', event, payload);
    assert.equal((await client.send(roomId, '🦜'.repeat(4_000), { clientId: null, metadata: null })).seq, 1, 'refused sends take no seq');
    client.socket.emit('message:send', { roomId });
    const error = await client.waitFor('error');
    assert.deepEqual([error.event, error.code, typeof error.message], ['message:send', 'validation_failed', 'string']);
  });

  test('only a good token of a living session connects', async () => {
    const user = await person();
    const claims = { sub: String(user.id), sid: user.sessionId };
    const bad = [undefined, '', 'x', 5, token(claims, { expiresIn: -1 }), token(claims, {}), token({ ...claims, sid: randomUUID() }),
      token({ sub: claims.sub }), token(claims, { expiresIn: 900, algorithm: 'HS512' })];
    for (const value of bad) {
      const client = await connect(peers[0], { token: value }, { wait: false });
      assert.equal((await client.waitFor('connect_error')).message, 'unauthorized');
    }
    const headers = { Authorization: `Bearer ${user.token}` };
    await connect(peers[1], undefined, { auth: {}, extraHeaders: headers });
    await pool.query('UPDATE login_sessions SET ended_at = now() WHERE id = $1', [user.sessionId]);
    const client = await connect(peers[1], user, { wait: false });
    assert.equal((await client.waitFor('connect_error')).message, 'unauthorized');
  });

  test('health and metrics answer', async () => {
    for (const path of ['/health/live', '/health/ready', '/healthz', '/readyz', '/metrics']) {
      assert.equal((await fetch(`${peers[0].url}${path}`)).status, 200, path);
    }
  });
});

for (const [name, env] of [['rows', {}], ['watermarks only', { RECEIPT_ROWS_MAX_MEMBERS: '1' }]]) {
  describe(`offline delivery with receipts as ${name}`, () => {
    const peers = usePeers(env);

    async function away(count) {
      const [user, reader] = await people(2);
      const roomId = await group(user, reader);
      const sender = await connect(peers[0], user);
      const sent = await Promise.all(range(1, count).map((n) => sender.send(roomId, `message ${n}`)));
      return { reader, roomId, sender, sent };
    }

    const delivered = async (sender, count) => {
      const told = () => sender.all('message:status', ({ status }) => status === 'delivered').flatMap(({ messageIds }) => messageIds);
      await sender.waitFor('message:status', () => new Set(told()).size >= count);
      return told();
    };

    test('what was missed comes in batches, each acknowledged, and not again', async () => {
      const { reader, sender, sent } = await away(120);
      const client = await connect(peers[1], reader);
      await client.waitFor('messages:offline', undefined, 3);
      const batches = client.all('messages:offline');
      assert.deepEqual(batches.map(({ batch, remaining }) => [batch, remaining]), [[1, 70], [2, 20], [3, 0]]);
      const messages = batches.flatMap((batch) => batch.messages);
      assert.deepEqual(messages.map(({ id }) => id), sent.map(({ id }) => id));
      assert.deepEqual(client.heard.map(({ event }) => event).slice(0, 2), ['session:ready', 'messages:offline']);
      assert.deepEqual((await delivered(sender, 120)).sort(), sent.map(({ id }) => id).sort(), 'told once each');
      client.socket.disconnect();
      const again = await connect(peers[0], reader);
      await again.ask('room:sync', { rooms: [{ roomId: sent[0].roomId, afterSeq: 0 }] });
      assert.deepEqual(again.all('messages:offline'), []);
    });

    test('what was not acknowledged comes again, what was read is held back', async () => {
      const { reader, roomId, sender, sent } = await away(120);
      const client = await connect(peers[1], reader, { offline: false });
      (await client.entry('messages:offline')).acknowledge('any shape', null);
      const { messages } = await client.waitFor('messages:offline', ({ batch }) => batch === 2);
      await delivered(sender, 50);
      await client.ask('message:delivered', { roomId, messageIds: messages.map(({ id }) => id) });
      await client.waitFor('messages:offline', ({ batch }) => batch === 3);
      await client.ask('message:read', { roomId, messageId: sent.at(-1).id });
      client.socket.io.engine.close();
      const again = await connect(peers[0], reader);
      const rest = await again.waitFor('messages:offline');
      assert.deepEqual([seqs(rest.messages), rest.batch, rest.remaining], [range(101, 120), 1, 0]);
    });

    test('a client that never acknowledges gets every batch all the same', async () => {
      const { reader } = await away(60);
      const client = await connect(peers[1], reader, { offline: false });
      await client.waitFor('messages:offline', undefined, 2);
      assert.deepEqual(client.all('messages:offline').map(({ messages }) => messages.length), [50, 10]);
    });
  });
}

describe('the limit of sends', () => {
  const peers = usePeers({ MESSAGE_RATE_PER_USER: '10' });

  test('a user has ten a second over all peers', async () => {
    const { users: [user], roomId, clients: [client, other] } = await conversation(peers);
    const second = await connect(peers[1], user);
    let refused;
    // Again, should this machine be so slow that thirty sends take seconds.
    do {
      const answers = await Promise.all(range(0, 29).map((n) => (
        [client, second][n % 2].emitAck('message:send', { roomId, content: `${n}` }))));
      refused = answers.filter(({ ok }) => !ok);
    } while (refused.length === 0);
    for (const { error } of refused) {
      assert.equal(error.code, 'rate_limited');
      assert.ok(Number.isInteger(error.retryAfterMs) && error.retryAfterMs >= 1 && error.retryAfterMs <= 1_000);
    }
    await other.send(roomId, 'others have a limit of their own');
  });
});

test('a draining peer says so, closes the transport and forgets its sockets', async () => {
  const peer = await startPeer({ INSTANCE_ID: `draining-${process.pid}` });
  const user = await person();
  const roomId = await group(user);
  const client = await connect(peer, user);
  const answers = [];
  const first = new Promise((resolve) => {
    for (const n of range(1, 50)) {
      client.socket.emit('message:send', { roomId, content: `${n}` }, (answer) => { resolve(answers.push(answer)); });
    }
  });
  await first;
  const exit = peer.stop();
  const { reconnectInMs } = await client.waitFor('server:draining');
  assert.ok(Number.isInteger(reconnectInMs));
  assert.equal(await client.waitFor('disconnect'), 'transport close');
  assert.deepEqual(await exit, { code: 0, signal: null });
  const { rows: [stored] } = await pool.query('SELECT last_seq::int FROM rooms WHERE id = $1', [roomId]);
  assert.equal(answers.filter(({ ok }) => ok).length, stored.last_seq, 'what was stored was acknowledged');
  assert.ok(answers.every(({ ok, error }) => ok || error.code === 'unavailable'), JSON.stringify(answers));
  const { rowCount } = await pool.query('SELECT 1 FROM user_sessions WHERE user_id = $1', [user.id]);
  assert.equal(rowCount, 0);
  closeClients();
});
