// Several instances on one Redis behave as one.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { createClient } from 'redis';
import { answered } from '../support/expect.mjs';
import { UNLIMITED, history, sendMany, useServer } from '../support/fixture.mjs';
import { startNodeServer } from '../support/node-server.mjs';
import { run, startRedis } from '../support/server.mjs';
import { until } from '../support/wait.mjs';

const seqs = (messages) => messages.map(({ seq }) => seq);
const upTo = (count) => Array.from({ length: count }, (_, i) => i + 1);

for (const adapter of ['node', 'socketioxide']) {
  describe(`two instances, ADAPTER=${adapter}`, () => {
    const world = useServer({ env: UNLIMITED, instances: 2, nodePeers: 0, adapter });
    /** Two people in a group, each on another instance. */
    const pair = async () => {
      const [a, b] = await world.people(2);
      const room = await world.group(a, b);
      const clients = [await world.connect(a, { at: 0 }), await world.connect(b, { at: 1 })];
      return { users: [a, b], room, clients };
    };

    test('messages that both store at once are heard in one order, by all', async () => {
      const { users, room, clients: [a, b] } = await pair();
      const polling = await world.connect(users[0], { at: 1, transports: ['polling'] });
      await Promise.all([sendMany(a, room.id, 150, 'a'), sendMany(b, room.id, 150, 'b')]);
      for (const client of [a, b, polling]) {
        const heard = await client.waitForMany('message:new', 300, undefined, { ms: 30_000 });
        assert.deepEqual(seqs(heard), upTo(300));
      }
    });

    test('a sender on one instance is known by the repeat on another', async () => {
      const { users: [a], room, clients: [first, other] } = await pair();
      const second = await world.connect(a, { at: 1 });
      const clientId = crypto.randomUUID();
      const [one, two] = await Promise.all([
        first.send(room.id, 'once', { clientId }), second.send(room.id, 'once', { clientId })]);
      assert.equal(one.id, two.id);
      await other.send(room.id, 'mark');
      await other.waitFor('message:new', ({ content }) => content === 'mark');
      assert.equal(other.all('message:new').length, 2);
    });

    test('typing, receipts and edits cross', async () => {
      const { users: [, b], room, clients: [a, other] } = await pair();
      other.socket.emit('typing:start', { roomId: room.id });
      await a.waitFor('typing:update', ({ isTyping, userId }) => isTyping && userId === b.id);
      const message = await a.send(room.id, 'to be read');
      await other.waitFor('message:new', ({ id }) => id === message.id);
      await other.ask('message:read', { roomId: room.id, messageId: message.id });
      await a.waitFor('message:status', ({ status, messageIds }) => status === 'read' && messageIds.includes(message.id));
      await a.ask('message:edit', { messageId: message.id, content: 'edited' });
      await other.waitFor('message:updated', ({ content }) => content === 'edited');
    });

    test('who joins a room hears it at once on every instance, and who is removed hears no more', async () => {
      const [owner, guest] = await world.people(2);
      const room = await world.group(owner);
      const [speaker, listener] = [await world.connect(owner, { at: 0 }), await world.connect(guest, { at: 1 })];
      await speaker.send(room.id, 'before');
      answered(await owner.api.post(`/rooms/${room.id}/members`, { userIds: [guest.id] }));
      await listener.waitFor('room:new', ({ id }) => id === room.id);
      await speaker.send(room.id, 'welcome');
      assert.equal((await listener.waitFor('message:new')).content, 'welcome');
      answered(await owner.api.del(`/rooms/${room.id}/members/${guest.id}`), 204);
      await listener.waitFor('room:removed', ({ roomId }) => roomId === room.id);
      const mark = listener.mark();
      const direct = await world.direct(owner, guest);
      await speaker.send(room.id, 'among us');
      await speaker.send(direct.id, 'a marker');
      await listener.waitFor('message:new', ({ roomId }) => roomId === direct.id, { since: mark });
      assert.deepEqual(listener.all('message:new', ({ roomId }) => roomId === room.id, mark), []);
    });

    test('a session that ends on one instance is disconnected on the other, and its token is refused there', async () => {
      const user = await world.person();
      const clients = [await world.connect(user, { at: 0 }), await world.connect(user, { at: 1 })];
      assert.equal((await user.api.post('/auth/logout', { refreshToken: user.refreshToken })).status, 204);
      for (const client of clients) {
        await client.waitFor('session:revoked');
        assert.equal(await client.waitFor('disconnect'), 'io server disconnect');
      }
      for (const url of world.server.urls) {
        await until(async () => (await fetch(`${url}/api/rooms`, {
          headers: { authorization: `Bearer ${user.token}` },
        })).status === 401, { ms: 6_000, what: '401' });
      }
    });

    test('when Redis restarts, nobody is disconnected, and what was missed comes in order', async () => {
      const { redis } = world.server;
      const { room, clients: [a, b] } = await pair();
      await a.send(room.id, 'before');
      await b.waitFor('message:new');
      await redis.stop('SIGKILL');
      await sendMany(a, room.id, 20, 'while away');
      await a.waitForMany('message:new', 21);
      world.server.redis = await startRedis(redis.port);
      // The other instance finds out by itself, without another message.
      assert.deepEqual(seqs(await b.waitForMany('message:new', 21, undefined, { ms: 30_000 })), upTo(21));
      await until(async () => {
        const sent = await a.send(room.id, 'after');
        return b.waitFor('message:new', ({ id }) => id === sent.id, { ms: 2_000 }).catch(() => undefined);
      }, { ms: 20_000, what: 'messages to cross again' });
      const heard = b.all('message:new');
      assert.deepEqual(seqs(heard), upTo(heard.length));
      assert.equal(b.all('disconnect').length, 0);
    });

    test('an instance whose subscriptions are killed catches up', async () => {
      const { room, clients: [a, b] } = await pair();
      const admin = createClient({ url: world.server.redis.url });
      await admin.connect();
      try {
        for (let round = 1; round <= 3; round += 1) {
          const sending = sendMany(a, room.id, 50, `round ${round}`);
          await admin.sendCommand(['CLIENT', 'KILL', 'TYPE', 'pubsub']);
          await sending;
        }
      } finally {
        admin.destroy();
      }
      assert.deepEqual(seqs(await b.waitForMany('message:new', 150, undefined, { ms: 30_000 })), upTo(150));
    });

    test('changes that were missed are said with sync:required, to those in the room alone', async () => {
      const { redis } = world.server;
      const [one, two] = [await pair(), await pair()];
      const [[a, b], [c, d]] = [one.clients, two.clients];
      const [edited] = [await a.send(one.room.id, 'to be edited'), await c.send(two.room.id, 'to be left alone')];
      await Promise.all([b.waitFor('message:new'), d.waitFor('message:new')]);
      await redis.stop('SIGKILL');
      await a.ask('message:edit', { messageId: edited.id, content: 'edited while away' });
      world.server.redis = await startRedis(redis.port);
      const { rooms } = await b.waitFor('sync:required', undefined, { ms: 30_000 });
      assert.deepEqual(rooms, [{ roomId: one.room.id, lastSeq: 1 }]);
      await d.silence('sync:required', { since: 0 });
    });

    test('when one instance is killed, the others go on and its users come back with all that they missed', async () => {
      const { users: [, b], room, clients: [a] } = await pair();
      await a.send(room.id, 'first');
      await world.server.all[1].killAlone('SIGKILL');
      await sendMany(a, room.id, 10, 'meanwhile');
      const back = await world.connect(b, { at: 0 });
      const missed = await back.waitFor('messages:offline');
      assert.ok(missed.messages.length >= 10);
      await world.server.all[1].restartAlone();
      const again = await world.connect(b, { at: 1 });
      await a.send(room.id, 'together again');
      assert.equal((await again.waitFor('message:new')).content, 'together again');
    });
  });
}

describe('a Node.js server of another application on the same Redis', () => {
  const world = useServer({ env: UNLIMITED, instances: 2, nodePeers: 0, adapter: 'node' });
  let node;
  before(async () => {
    node = await startNodeServer(world.server.redis.url);
    await until(async () => (await node.io.of('/').adapter.serverCount()) === 3, { what: 'three servers' });
  });
  after(() => node?.close());

  test('finds the sockets of all instances with their rooms and their users', async () => {
    const { users, room, clients } = await world.conversation(4);
    const found = await node.io.in(`room:${room.id}`).fetchSockets();
    assert.deepEqual(found.map(({ data }) => data.userId).sort(), users.map(({ id }) => id).sort());
    for (const [i, client] of clients.entries()) {
      const socket = found.find(({ id }) => id === client.socket.id);
      assert.ok(socket, 'by the id that the client knows');
      for (const name of [client.socket.id, `user:${users[i].id}`, `room:${room.id}`, `session:${users[i].sid}`]) {
        assert.ok(socket.rooms.has(name), name);
      }
      assert.equal(typeof socket.handshake.headers, 'object');
      assert.equal(JSON.stringify(socket.handshake).includes(users[i].token), false, 'the token stays here');
    }
    const rooms = await node.io.of('/').adapter.allRooms();
    assert.ok(rooms.has(`room:${room.id}`));
  });

  test('reaches rooms, users and single sockets, with attachments, and leaves out who is excepted', async () => {
    const { users, room, clients: [a, b, c] } = await world.conversation(3);
    node.io.to(`room:${room.id}`).except(`user:${users[1].id}`).emit('news', 'for two', { bytes: Buffer.from([1, 2, 3]) });
    node.io.to(c.socket.id).emit('news', 'for one');
    node.emitter.to(`user:${users[1].id}`).emit('news', 'by an emitter');
    node.io.emit('news', 'for all');
    for (const client of [a, b, c]) await client.waitFor('news', (word) => word === 'for all');
    assert.deepEqual(a.all('news'), ['for two', 'for all']);
    assert.deepEqual(c.all('news'), ['for two', 'for one', 'for all']);
    assert.deepEqual(b.all('news').sort(), ['by an emitter', 'for all']);
  });

  test('asks clients of all instances, and gets each answer', async () => {
    const { room, clients } = await world.conversation(4);
    clients.forEach(({ socket }, i) => socket.on('question', (word, answer) => { if (i < 3) answer({ word, i }); }));
    const asked = node.io.to(`room:${room.id}`).timeout(1_000).emitWithAck('question', 'how?');
    const answers = await asked.catch((error) => error.responses);
    assert.deepEqual(answers.sort((x, y) => x.i - y.i), [0, 1, 2].map((i) => ({ word: 'how?', i })), 'one is silent');
  });

  test('moves sockets between rooms and disconnects them, but never into the rooms of others', async () => {
    const { users: [one, two], clients: [a, b] } = await world.conversation(2);
    node.io.in(`user:${one.id}`).socketsJoin(['lobby', `user:${two.id}`]);
    await until(async () => (await node.io.in('lobby').fetchSockets()).length === 1, { what: 'the join' });
    node.io.to('lobby').emit('lobby', 'hello');
    await a.waitFor('lobby');
    node.io.to(`user:${two.id}`).emit('private', 'for two alone');
    await b.waitFor('private');
    node.io.in(`user:${one.id}`).socketsLeave('lobby');
    await until(async () => (await node.io.in('lobby').fetchSockets()).length === 0, { what: 'the leave' });
    node.io.in(`user:${one.id}`).disconnectSockets();
    assert.equal(await a.waitFor('disconnect'), 'io server disconnect');
    assert.equal(a.all('private').length, 0);
    node.io.in(`user:${two.id}`).disconnectSockets(true);
    await b.waitFor('disconnect');
  });

  test('what is no message changes nothing', async () => {
    const { room, clients: [a, b] } = await world.conversation(2);
    for (const junk of ['', 'junk', '{"a":1}', '\u00c1', '[]', 'x'.repeat(100_000)]) {
      for (const channel of ['socket.io#/#', `socket.io#/#room:${room.id}#`, 'socket.io-request#/#', 'socket.io-response#/#']) {
        // The Node.js server here would die of some of them.
        if (channel.includes('-re')) await node.pub.publish(channel, junk);
      }
    }
    node.io.to(`room:${room.id}`).emit('connect_to', 'fine');
    await a.waitFor('connect_to');
    await a.send(room.id, 'still here');
    await b.waitFor('message:new');
  });

  test('events between servers are answered, not with silence', async () => {
    assert.deepEqual(await node.io.serverSideEmitWithAck('anybody?'), [null, null]);
  });

  test('a room is in order when a foreign server repeats and reorders its messages', async () => {
    const { room, users: [reader], clients: [a, b] } = await world.conversation(2);
    await sendMany(a, room.id, 3);
    await b.waitForMany('message:new', 3);
    const stored = (await history(reader, room.id)).messages;
    for (const message of [stored[2], stored[0], stored[1]]) node.io.to(`room:${room.id}`).emit('message:new', message);
    node.io.to(`room:${room.id}`).emit('mark');
    await b.entry('mark');
    await a.entry('mark');
    for (const client of [a, b]) assert.deepEqual(seqs(client.all('message:new')), [1, 2, 3]);
  });

  test('a change that comes late is not the last that clients hear', async () => {
    const { room, clients: [a, b] } = await world.conversation(2);
    const message = await a.send(room.id, 'original');
    const { message: first } = await a.ask('message:edit', { messageId: message.id, content: 'first' });
    await a.ask('message:edit', { messageId: message.id, content: 'second' });
    const { receipts: _, ...late } = first;
    for (const client of [a, b]) await client.waitFor('message:updated', ({ content }) => content === 'second');
    const marks = [a, b].map((client) => client.mark());
    node.io.to(`room:${room.id}`).emit('message:updated', late);
    for (const [i, client] of [a, b].entries()) {
      await client.waitFor('message:updated', ({ content }) => content === 'first', { since: marks[i] });
      const settled = await client.waitFor('message:updated', ({ content }) => content === 'second', { since: marks[i] });
      assert.equal(settled.receipts, undefined);
    }
    // Nothing comes without end.
    await a.silence('message:updated');
  });

  test('all agree in the end when a message is changed on both instances at once', async () => {
    const { users: [author, reader], room, clients: [one] } = await world.conversation(2);
    const [here, there] = [await world.connect(author, { at: 0 }), await world.connect(author, { at: 1 })];
    const readers = [await world.connect(reader, { at: 0 }), await world.connect(reader, { at: 1 })];
    const message = await one.send(room.id, 'original');
    await Promise.all([here, there].map(async (client, i) => {
      for (let n = 0; n < 10; n += 1) await client.ask('message:edit', { messageId: message.id, content: `${i}-${n}` });
    }));
    const stored = (await history(reader, room.id)).messages.at(-1).content;
    for (const client of [here, there, ...readers]) {
      await until(() => client.all('message:updated').at(-1)?.content === stored, { ms: 5_000, what: `${stored} everywhere` });
    }
  });
});

test('ADAPTER=node without REDIS_URL is refused in words', async () => {
  const { code, stderr } = await run(['serve'], { DATABASE_URL: 'postgres://a@127.0.0.1/b', JWT_SECRET: 'x'.repeat(40), ADAPTER: 'node' });
  assert.equal(code, 2);
  assert.match(stderr, /ADAPTER.*REDIS_URL/s);
});
