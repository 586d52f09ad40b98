// A Node.js chat server on the same database and Redis: what a team has while it moves over.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { UNLIMITED, history, sendMany, useServer } from '../support/fixture.mjs';
import { until } from '../support/wait.mjs';

const [RUST, NODE] = [0, 1];
const seqs = (messages) => messages.map(({ seq }) => seq);
const upTo = (count) => Array.from({ length: count }, (_, i) => i + 1);

for (const client of ['redis', 'ioredis']) {
  describe(`Starling beside a Node.js server with ${client}`, () => {
    const world = useServer({
      env: { ...UNLIMITED, REDIS_CLIENT: client }, instances: 1, nodePeers: 1, adapter: 'node',
    });
    const pair = async () => {
      const users = await world.people(2);
      const room = await world.group(...users);
      const clients = [await world.connect(users[0], { at: RUST }), await world.connect(users[1], { at: NODE })];
      return { users, room, clients };
    };

    test('number the messages of a room together, and Starling\'s clients hear them in order', async () => {
      const { users, room, clients: [rust, node] } = await pair();
      const second = await world.connect(users[1], { at: RUST });
      await Promise.all([sendMany(rust, room.id, 100, 'rust'), sendMany(node, room.id, 100, 'node')]);
      for (const heard of [rust, second]) {
        assert.deepEqual(seqs(await heard.waitForMany('message:new', 200, undefined, { ms: 30_000 })), upTo(200));
      }
      // A plain Node.js server passes on what comes as it comes.
      const there = await node.waitForMany('message:new', 200, undefined, { ms: 30_000 });
      assert.deepEqual(seqs(there).sort((a, b) => a - b), upTo(200));
      for (const after of [0, 100]) {
        const { messages } = await history(users[0], room.id, `after=${after}&limit=100`);
        assert.deepEqual(seqs(messages), upTo(200).slice(after, after + 100));
      }
    });

    test('know each other\'s repeats', async () => {
      const { users, room, clients: [rust] } = await pair();
      const node = await world.connect(users[0], { at: NODE });
      for (let i = 0; i < 10; i += 1) {
        const clientId = crypto.randomUUID();
        const [one, two] = await Promise.all([rust, node].map((socket) => socket.send(room.id, `${i}`, { clientId })));
        assert.equal(one.id, two.id);
      }
      assert.equal((await history(users[0], room.id)).messages.length, 10);
    });

    test('tell each other of receipts, typing and edits', async () => {
      const { users: [one, two], room, clients: [rust, node] } = await pair();
      for (const [from, to, reader] of [[rust, node, two], [node, rust, one]]) {
        const message = await from.send(room.id, 'read me');
        await to.waitFor('message:new', ({ id }) => id === message.id);
        await to.ask('message:read', { roomId: room.id, messageId: message.id });
        await from.waitFor('message:status', ({ status, userId, messageIds }) => (
          status === 'read' && userId === reader.id && messageIds.includes(message.id)));
        to.socket.emit('typing:start', { roomId: room.id });
        await from.waitFor('typing:update', ({ userId, isTyping }) => isTyping && userId === reader.id);
        await from.ask('message:edit', { messageId: message.id, content: 'edited' });
        await to.waitFor('message:updated', ({ id, content }) => id === message.id && content === 'edited');
      }
    });

    test('what REST on Starling does reaches sockets of the Node.js server', async () => {
      const [owner, guest] = await world.people(2);
      const room = await world.group(owner);
      const [rust, node] = [await world.connect(owner, { at: RUST }), await world.connect(guest, { at: NODE })];
      assert.equal((await owner.api.post(`/rooms/${room.id}/members`, { userIds: [guest.id] })).status, 200);
      await node.waitFor('room:new', ({ id }) => id === room.id);
      await rust.send(room.id, 'welcome');
      await node.waitFor('message:new');
      assert.equal((await owner.api.del(`/rooms/${room.id}/members/${guest.id}`)).status, 204);
      await node.waitFor('room:removed');
      const mark = node.mark();
      const direct = await world.direct(owner, guest);
      await until(() => node.all('room:new', ({ id }) => id === direct.id).length === 1, { what: 'room:new' });
      await rust.send(room.id, 'among us');
      await rust.send(direct.id, 'a marker');
      await node.waitFor('message:new', ({ roomId }) => roomId === direct.id);
      assert.equal(node.all('message:new', ({ roomId }) => roomId === room.id, mark).length, 0);
      await guest.api.post('/auth/logout', { refreshToken: guest.refreshToken });
      await node.waitFor('session:revoked');
      assert.equal(await node.waitFor('disconnect'), 'io server disconnect');
    });

    test('a user goes from one to the other and back, and misses nothing', async () => {
      const { users: [, guest], room, clients: [rust, first] } = await pair();
      let client = first;
      for (let round = 0; round < 4; round += 1) {
        client.drop();
        await until(async () => {
          const { rows } = await world.server.db.query('SELECT count(*)::int AS open FROM user_sessions WHERE user_id = $1', [guest.id]);
          return rows[0].open === 0;
        }, { what: 'the old socket to be gone' });
        const sent = await sendMany(rust, room.id, 5, `round ${round}`);
        client = await world.connect(guest, { at: round % 2 === 0 ? RUST : NODE });
        const { messages } = await client.waitFor('messages:offline');
        assert.deepEqual(messages.map(({ id }) => id), sent.map(({ id }) => id));
        await until(async () => {
          const { rows } = await world.server.db.query(
            'SELECT count(*)::int AS open FROM message_receipts WHERE user_id = $1 AND delivered_at IS NULL', [guest.id]);
          return rows[0].open === 0;
        }, { what: 'the receipts' });
      }
    });
  });
}
