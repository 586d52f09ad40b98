// What was said while one was away comes in batches, and nothing is lost when the connection drops midway.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { checkMessage } from '../support/expect.mjs';
import { UNLIMITED, history, sendMany, useServer } from '../support/fixture.mjs';
import { sleep, until } from '../support/wait.mjs';

function offlineTests(world) {
  /** Two people, the second away while the first says `count` things. */
  async function away(count) {
    const [sender, reader] = await world.people(2);
    const room = await world.direct(sender, reader);
    const client = await world.connect(sender);
    await sendMany(client, room.id, count);
    return { sender, reader, room, client };
  }

  const batches = (client, count, ms) => client.waitForMany('messages:offline', count, undefined, { ms });
  const seqs = (batch) => batch.messages.map(({ seq }) => seq);
  const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
  const deliveredTo = async (sender, room) => (await history(sender, room.id, 'after=0&limit=100')).messages
    .filter(({ receipts }) => receipts.delivered === 1).length;
  const byBatch = (number) => ({ batch }) => batch === number;

  test('120 messages come in three batches, oldest first, 100 ms apart', async () => {
    const { reader, room, client: sender } = await away(120);
    const client = await world.connect(reader);
    const all = await batches(client, 3);
    assert.deepEqual(all.map(({ batch, remaining }) => [batch, remaining]), [[1, 70], [2, 20], [3, 0]]);
    assert.deepEqual(all.map(seqs), [range(1, 50), range(51, 100), range(101, 120)]);
    all.flatMap(({ messages }) => messages).forEach((message) => {
      checkMessage(message);
      assert.equal(message.roomId, room.id);
    });
    const times = client.entries('messages:offline').map(({ at }) => at);
    assert.ok(times[1] - times[0] >= 95 && times[2] - times[1] >= 95, `at ${times}`);
    const ready = client.log.findIndex(({ event }) => event === 'session:ready');
    assert.ok(ready < client.log.findIndex(({ event }) => event === 'messages:offline'), 'session:ready comes before');
    // The sender hears of all of them, and the next connection gets nothing.
    await until(() => {
      const told = sender.all('message:status', ({ status }) => status === 'delivered').flatMap(({ messageIds }) => messageIds);
      return new Set(told).size === 120;
    }, { what: 'message:status for all 120' });
    const again = await world.connect(reader);
    await again.silence('messages:offline', { since: 0 });
  });

  test('the next batch waits for the acknowledgement of the one before', async () => {
    const { sender, reader, room } = await away(60);
    const client = await world.connect(reader, { offline: 'silent' });
    const first = await client.entry('messages:offline');
    await sleep(1_000);
    assert.equal(client.all('messages:offline').length, 1);
    assert.equal(await deliveredTo(sender, room), 0, 'sent is not delivered');
    first.acknowledge();
    const second = await client.entry('messages:offline', byBatch(2), { ms: 900 });
    await until(async () => (await deliveredTo(sender, room)) === 50, { what: '50 delivered' });
    second.acknowledge(null);
    await until(async () => (await deliveredTo(sender, room)) === 60, { what: 'the rest delivered' });
  });

  test('acknowledgements of every shape count', async () => {
    for (const shape of [[], [null], [{ ok: true }], ['text']]) {
      const { reader } = await away(51);
      const client = await world.connect(reader, { offline: 'silent' });
      (await client.entry('messages:offline')).acknowledge(...shape);
      await client.waitFor('messages:offline', byBatch(2), { ms: 1_500 });
    }
  });

  test('message:delivered for the messages of a batch counts as its acknowledgement', async () => {
    const { sender, reader, room } = await away(60);
    const client = await world.connect(reader, { offline: 'silent' });
    const { messages } = await client.waitFor('messages:offline');
    await client.ask('message:delivered', { roomId: room.id, messageIds: messages.map(({ id }) => id) });
    await client.waitFor('messages:offline', byBatch(2), { ms: 1_500 });
    await until(async () => (await deliveredTo(sender, room)) === 50, { what: '50 delivered' });
  });

  test('a client that never acknowledges gets every batch after 2 s, and all again next time', async () => {
    const { sender, reader, room } = await away(60);
    const client = await world.connect(reader, { offline: 'silent' });
    await batches(client, 2, 10_000);
    const [first, second] = client.entries('messages:offline').map(({ at }) => at);
    assert.ok(second - first >= 1_800 && second - first < 6_000, `after ${second - first} ms`);
    assert.equal(await deliveredTo(sender, room), 0);
    client.close();
    const again = await world.connect(reader);
    assert.deepEqual((await batches(again, 2)).map(seqs), [range(1, 50), range(51, 60)]);
  });

  test('when the connection drops midway, the rest comes next time, counted from 1', async () => {
    const { sender, reader, room } = await away(120);
    const client = await world.connect(reader, { offline: 'silent' });
    (await client.entry('messages:offline')).acknowledge();
    await client.waitFor('messages:offline', byBatch(2));
    await until(async () => (await deliveredTo(sender, room)) === 50, { what: '50 delivered' });
    client.drop();
    const again = await world.connect(reader);
    const rest = await batches(again, 2);
    assert.deepEqual(rest.map(({ batch, remaining }) => [batch, remaining]), [[1, 20], [2, 0]]);
    assert.deepEqual(rest.map(seqs), [range(51, 100), range(101, 120)]);
  });

  test('a client that reads the newest first and then drops gets the rest next time', async () => {
    const { reader, room } = await away(120);
    const client = await world.connect(reader, { offline: 'silent' });
    (await client.entry('messages:offline')).acknowledge();
    await client.waitFor('messages:offline', byBatch(2));
    const newest = (await history(reader, room.id, 'limit=1')).messages[0];
    const { lastReadSeq } = await client.ask('message:read', { roomId: room.id, messageId: newest.id });
    assert.equal(lastReadSeq, 120);
    client.drop();
    const again = await world.connect(reader);
    const seen = new Set((await batches(again, 2)).flatMap(seqs));
    for (const seq of range(101, 120)) assert.ok(seen.has(seq), `message ${seq} was never sent`);
  });

  test('what is read meanwhile is sent all the same', async () => {
    const { reader, room } = await away(120);
    const client = await world.connect(reader, { offline: 'silent' });
    const first = await client.entry('messages:offline');
    const newest = (await history(reader, room.id, 'limit=1')).messages[0];
    await client.ask('message:read', { roomId: room.id, messageId: newest.id });
    first.acknowledge();
    (await client.entry('messages:offline', byBatch(2))).acknowledge();
    const last = await client.waitFor('messages:offline', byBatch(3));
    assert.deepEqual(seqs(last), range(101, 120));
  });

  test('messages of several rooms come together, of rooms that one has left not at all', async () => {
    const [sender, reader] = await world.people(2);
    const rooms = [await world.group(sender, reader), await world.group(sender, reader), await world.group(sender, reader)];
    const client = await world.connect(sender);
    for (const content of ['first', 'second']) for (const room of rooms) await client.send(room.id, content);
    await reader.api.del(`/rooms/${rooms[1].id}/members/${reader.id}`);
    const { messages, batch, remaining } = await (await world.connect(reader)).waitFor('messages:offline');
    assert.deepEqual(messages.map(({ roomId, content }) => [roomId, content]), [
      [rooms[0].id, 'first'], [rooms[2].id, 'first'], [rooms[0].id, 'second'], [rooms[2].id, 'second'],
    ]);
    assert.deepEqual([batch, remaining], [1, 0]);
  });

  test('one who has seen everything gets no batch', async () => {
    const { sender, reader, room, client } = await away(1);
    const first = await world.connect(reader);
    await first.waitFor('messages:offline');
    const own = await client.send(room.id, 'live');
    await first.waitFor('message:new');
    await first.ask('message:delivered', { roomId: room.id, messageIds: [own.id] });
    await until(async () => (await deliveredTo(sender, room)) === 2, { what: 'both delivered' });
    for (const user of [sender, reader]) {
      await (await world.connect(user)).silence('messages:offline', { since: 0 });
    }
  });
}

describe('offline delivery', () => {
  offlineTests(useServer({ env: UNLIMITED }));
});

describe('offline delivery above RECEIPT_ROWS_MAX_MEMBERS', () => {
  offlineTests(useServer({ env: { ...UNLIMITED, RECEIPT_ROWS_MAX_MEMBERS: '1' } }));
});
