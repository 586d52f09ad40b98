// Delivered and read: receipts, watermarks, and what the sender hears.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, test } from 'node:test';
import { isTime } from '../support/expect.mjs';
import { UNLIMITED, history, memberOf, roomOf, sendMany, useServer } from '../support/fixture.mjs';

const receiptsOf = async (user, roomId) => (await history(user, roomId)).messages.map(({ receipts }) => receipts);
const isStatus = (status, userId) => (event) => event.status === status && event.userId === userId;

/** What holds with rows per recipient and with watermarks alike. */
function commonTests(world) {
  test('delivered and read reach the sender as message:status, twice for each reader', async () => {
    const { users: [sender, reader], room, clients } = await world.conversation(3);
    const [client, readerClient] = clients;
    const states = await world.watch(...clients);
    const message = await client.send(room.id, 'hello');
    await readerClient.ask('message:delivered', { roomId: room.id, messageIds: [message.id] });
    const delivered = await client.waitFor('message:status', isStatus('delivered', reader.id));
    assert.deepEqual([delivered.roomId, delivered.messageIds], [room.id, [message.id]]);
    assert.ok(isTime(delivered.at));
    assert.deepEqual(await receiptsOf(sender, room.id), [{ recipients: 2, delivered: 1, read: 0 }]);
    const { lastReadSeq } = await readerClient.ask('message:read', { roomId: room.id, messageId: message.id });
    assert.equal(lastReadSeq, 1);
    const read = await client.waitFor('message:status', isStatus('read', reader.id));
    assert.deepEqual([read.roomId, read.messageIds], [room.id, [message.id]]);
    assert.deepEqual(await receiptsOf(sender, room.id), [{ recipients: 2, delivered: 1, read: 1 }]);
    assert.deepEqual((await roomOf(sender, room.id)).lastMessage.receipts, { recipients: 2, delivered: 1, read: 1 });
    for (const other of clients.slice(1)) assert.deepEqual(other.all('message:status'), [], 'only the sender hears it');
    await states.assertFresh();
  });

  test('reading counts as delivered, and means everything up to that message', async () => {
    const { users: [sender, reader], room, clients: [client, readerClient] } = await world.conversation(2);
    const states = await world.watch(client, readerClient);
    const messages = await sendMany(client, room.id, 5);
    await readerClient.ask('message:read', { roomId: room.id, messageId: messages[2].id });
    await client.waitFor('message:status', isStatus('read', reader.id));
    const counts = (await receiptsOf(sender, room.id)).map(({ delivered, read }) => [delivered, read]);
    assert.deepEqual(counts, [[1, 1], [1, 1], [1, 1], [0, 0], [0, 0]]);
    assert.equal((await roomOf(reader, room.id)).unreadCount, 2);
    const told = client.all('message:status', isStatus('read', reader.id)).flatMap(({ messageIds }) => messageIds);
    assert.deepEqual(told.sort(), messages.slice(0, 3).map(({ id }) => id).sort());
    await states.assertFresh();
  });

  test('lastReadSeq never goes back', async () => {
    const { users: [, reader], room, clients: [client, readerClient] } = await world.conversation(2);
    const states = await world.watch(client, readerClient);
    const messages = await sendMany(client, room.id, 3);
    const read = async (i) => (await readerClient.ask('message:read', { roomId: room.id, messageId: messages[i].id })).lastReadSeq;
    assert.equal(await read(1), 2);
    assert.equal(await read(0), 2);
    assert.equal((await memberOf(reader, room.id, reader.id)).lastReadSeq, 2);
    assert.equal(await read(2), 3);
    await states.assertFresh();
  });

  test('room:read goes to the other sockets of the reader only', async () => {
    const { users: [, reader], room, clients: [client, readerClient] } = await world.conversation(2);
    const second = await world.connect(reader);
    const states = await world.watch(client, readerClient, second);
    const message = await client.send(room.id, 'hello');
    await readerClient.ask('message:read', { roomId: room.id, messageId: message.id });
    assert.deepEqual(await second.waitFor('room:read'), { roomId: room.id, lastReadSeq: 1 });
    await client.silence('room:read', { since: 0 });
    assert.deepEqual(readerClient.all('room:read'), []);
    await states.assertFresh();
  });

  test('unreadCount counts what others said, and sending moves no watermark', async () => {
    const { users: [one, other], room, clients: [client, otherClient] } = await world.conversation(2);
    const states = await world.watch(client, otherClient);
    await client.send(room.id, 'question');
    await otherClient.send(room.id, 'answer');
    await client.send(room.id, 'more');
    assert.equal((await roomOf(one, room.id)).unreadCount, 1);
    assert.equal((await roomOf(other, room.id)).unreadCount, 2);
    assert.equal((await memberOf(one, room.id, one.id)).lastReadSeq, 0);
    await states.assertFresh();
  });

  test('unknown ids, ids of another room and own messages are ignored', async () => {
    const { users: [sender, reader], room, clients: [client, readerClient] } = await world.conversation(2);
    const elsewhere = await world.group(sender, reader);
    const there = await client.send(elsewhere.id, 'there');
    const own = await readerClient.send(room.id, 'own');
    const message = await client.send(room.id, 'here');
    const states = await world.watch(client, readerClient);
    await readerClient.ask('message:delivered', { roomId: room.id, messageIds: [there.id, own.id, randomUUID()] });
    assert.deepEqual((await history(sender, room.id)).messages.at(-1).receipts, { recipients: 1, delivered: 0, read: 0 });
    assert.deepEqual(await receiptsOf(sender, elsewhere.id), [{ recipients: 1, delivered: 0, read: 0 }]);
    await readerClient.ask('message:delivered', { roomId: room.id, messageIds: [randomUUID(), message.id] });
    const { messageIds } = await client.waitFor('message:status');
    assert.deepEqual(messageIds, [message.id]);
    await states.assertFresh();
  });

  test('what is delivered or read twice is told once', async () => {
    const { users: [, reader], room, clients: [client, readerClient] } = await world.conversation(2);
    const message = await client.send(room.id, 'hello');
    const payload = { roomId: room.id, messageIds: [message.id] };
    for (let i = 0; i < 2; i += 1) await readerClient.ask('message:delivered', payload);
    for (let i = 0; i < 2; i += 1) await readerClient.ask('message:read', { roomId: room.id, messageId: message.id });
    await client.waitFor('message:status', isStatus('read', reader.id));
    await client.silence('message:status', { matches: isStatus('read', reader.id), since: client.mark() });
    for (const status of ['delivered', 'read']) {
      assert.equal(client.all('message:status', isStatus(status, reader.id)).length, 1, status);
    }
  });
}

describe('receipts', () => {
  const world = useServer({ env: UNLIMITED });
  commonTests(world);

  test('recipients are the members at the time of sending', async () => {
    const { users: [sender], room, clients: [client] } = await world.conversation(2);
    await client.send(room.id, 'early');
    const late = await world.person();
    await sender.api.post(`/rooms/${room.id}/members`, { userIds: [late.id] });
    await client.send(room.id, 'late');
    assert.deepEqual((await receiptsOf(sender, room.id)).map(({ recipients }) => recipients), [1, 2]);
    const lateClient = await world.connect(late);
    const { messages } = await history(late, room.id);
    await lateClient.ask('message:read', { roomId: room.id, messageId: messages[1].id });
    assert.deepEqual((await receiptsOf(sender, room.id)).map(({ read }) => read), [0, 1]);
  });

  test('delivered marks the messages named, and no other', async () => {
    const { users: [sender], room, clients: [client, readerClient] } = await world.conversation(2);
    const messages = await sendMany(client, room.id, 3);
    await readerClient.ask('message:delivered', { roomId: room.id, messageIds: [messages[2].id] });
    assert.deepEqual((await receiptsOf(sender, room.id)).map(({ delivered }) => delivered), [0, 0, 1]);
  });

  test('delivered takes 1 to 100 ids, read one, of a room that one is in', async () => {
    const { room, clients: [client] } = await world.conversation(2);
    const message = await client.send(room.id, 'hello');
    const fill = (count) => Array.from({ length: count }, () => randomUUID());
    await client.ask('message:delivered', { roomId: room.id, messageIds: fill(100) });
    for (const messageIds of [undefined, null, [], fill(101), 'x', ['x'], [5], {}]) {
      await client.refused('validation_failed', 'message:delivered', { roomId: room.id, messageIds });
    }
    for (const messageId of [undefined, null, 5, 'x', []]) {
      await client.refused('validation_failed', 'message:read', { roomId: room.id, messageId });
    }
    await client.refused('not_found', 'message:read', { roomId: room.id, messageId: randomUUID() });
    const stranger = await world.connect(await world.person());
    await stranger.refused('not_found', 'message:delivered', { roomId: room.id, messageIds: [message.id] });
    await stranger.refused('not_found', 'message:read', { roomId: room.id, messageId: message.id });
  });

  test('a reader of many senders tells each of them of their own messages', async () => {
    const { users, room, clients } = await world.conversation(3);
    const states = await world.watch(...clients);
    const first = await clients[0].send(room.id, 'from the first');
    const second = await clients[1].send(room.id, 'from the second');
    await clients[2].ask('message:read', { roomId: room.id, messageId: second.id });
    for (const [client, message] of [[clients[0], first], [clients[1], second]]) {
      const { messageIds } = await client.waitFor('message:status', isStatus('read', users[2].id));
      assert.deepEqual(messageIds, [message.id]);
    }
    await states.assertFresh();
  });
});

describe('receipts as watermarks only (above RECEIPT_ROWS_MAX_MEMBERS)', () => {
  const world = useServer({ env: { ...UNLIMITED, RECEIPT_ROWS_MAX_MEMBERS: '1' } });
  commonTests(world);

  test('delivered means everything up to the highest seq given', async () => {
    const { users: [sender, reader], room, clients: [client, readerClient] } = await world.conversation(2);
    const messages = await sendMany(client, room.id, 4);
    await readerClient.ask('message:delivered', { roomId: room.id, messageIds: [messages[2].id, messages[0].id] });
    await client.waitFor('message:status', isStatus('delivered', reader.id));
    assert.deepEqual((await receiptsOf(sender, room.id)).map(({ delivered }) => delivered), [1, 1, 1, 0]);
    assert.equal((await memberOf(sender, room.id, reader.id)).lastDeliveredSeq, 3);
    const { rows } = await world.server.db.query('SELECT count(*)::int AS count FROM message_receipts');
    assert.equal(rows[0].count, 0, 'no rows are kept for rooms above the limit');
  });
});

describe('rooms around RECEIPT_ROWS_MAX_MEMBERS=2', () => {
  const world = useServer({ env: { ...UNLIMITED, RECEIPT_ROWS_MAX_MEMBERS: '2' } });

  test('a room of two keeps rows, a room of three watermarks, and clients see no difference', async () => {
    for (const size of [2, 3]) {
      const { users: [sender, reader], room, clients: [client, readerClient] } = await world.conversation(size);
      const states = await world.watch(client, readerClient);
      const [message] = await sendMany(client, room.id, 1);
      await readerClient.ask('message:read', { roomId: room.id, messageId: message.id });
      await client.waitFor('message:status', isStatus('read', reader.id));
      assert.deepEqual(await receiptsOf(sender, room.id), [{ recipients: size - 1, delivered: 1, read: 1 }]);
      const { rows } = await world.server.db.query('SELECT count(*)::int AS count FROM message_receipts WHERE message_id = $1', [message.id]);
      assert.equal(rows[0].count, size === 2 ? 1 : 0);
      await states.assertFresh();
    }
  });
});
