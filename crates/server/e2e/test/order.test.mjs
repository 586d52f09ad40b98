// One order for all, whoever speaks at once.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { UNLIMITED, history, sendMany, useServer } from '../support/fixture.mjs';

describe('order', () => {
  const world = useServer({ env: UNLIMITED });

  test('when many speak at once, all hear the same, ascending, each message once', async () => {
    const EACH = 60;
    const { users: [owner], room, clients } = await world.conversation(6);
    clients.push(await world.connect(owner, { transports: ['polling'] }), await world.connect(owner));
    const states = await world.watch(...clients.slice(0, 6));
    const speakers = clients.slice(0, 6);
    const acknowledged = await Promise.all(speakers.map((client, i) => sendMany(client, room.id, EACH, `speaker ${i}`)));
    const total = EACH * speakers.length;
    const ascending = Array.from({ length: total }, (_, i) => i + 1);
    for (const client of clients) {
      const heard = await client.waitForMany('message:new', total, undefined, { ms: 30_000 });
      assert.deepEqual(heard.map(({ seq }) => seq), ascending);
      assert.deepEqual(heard.map(({ id }) => id), clients[0].all('message:new').map(({ id }) => id));
    }
    for (const [i, client] of speakers.entries()) {
      const seqs = acknowledged[i].map(({ seq }) => seq);
      assert.deepEqual(seqs, [...seqs].sort((a, b) => a - b), 'stored in the order sent');
      const answers = client.all('ack').map(({ message }) => message.content);
      assert.deepEqual(answers, acknowledged[i].map((_, n) => `speaker ${i} ${n + 1}`), 'acknowledged in the order sent');
    }
    await states.assertFresh();
  });

  test('a socket that speaks in several rooms keeps the order in each', async () => {
    const [speaker, listener] = await world.people(2);
    const rooms = [await world.group(speaker, listener), await world.group(speaker, listener), await world.group(speaker, listener)];
    const [client, heard] = await world.connectAll([speaker, listener]);
    await Promise.all(Array.from({ length: 150 }, (_, i) => client.send(rooms[i % 3].id, `${i}`)));
    await heard.waitForMany('message:new', 150);
    for (const [r, room] of rooms.entries()) {
      const expected = Array.from({ length: 50 }, (_, i) => `${i * 3 + r}`);
      assert.deepEqual(heard.all('message:new', ({ roomId }) => roomId === room.id).map(({ content }) => content), expected);
      assert.deepEqual((await history(speaker, room.id)).messages.map(({ content }) => content), expected);
    }
  });

  test('an event that follows a send on the same socket finds it done', async () => {
    const { room, clients: [client, other] } = await world.conversation(2);
    for (let i = 1; i <= 20; i += 1) {
      const [, synced] = await Promise.all([
        client.send(room.id, `message ${i}`),
        client.ask('room:sync', { rooms: [{ roomId: room.id, afterSeq: i - 1 }] }),
      ]);
      assert.equal(synced.rooms[0].lastSeq, i);
    }
    await other.waitForMany('message:new', 20);
  });
});
