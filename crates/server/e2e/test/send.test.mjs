// message:send: fields, limits, idempotence, order.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, test } from 'node:test';
import { accepted, checkMessage } from '../support/expect.mjs';
import { UNLIMITED, roomOf, sendMany, useServer } from '../support/fixture.mjs';
import { sleep } from '../support/wait.mjs';

describe('sending', () => {
  const world = useServer({ env: UNLIMITED });

  test('a message is acknowledged with all its fields and reaches every member, the sender included', async () => {
    const { users: [sender], room, clients } = await world.conversation(3);
    const states = await world.watch(...clients);
    const clientId = randomUUID();
    const metadata = { width: 3, nested: { list: [1, null, 'ä'] } };
    const message = await clients[0].send(room.id, 'Hello 🦜', { clientId, messageType: 'image', metadata });
    checkMessage(message, sender.id);
    assert.deepEqual(
      [message.roomId, message.senderId, message.seq, message.content, message.messageType, message.clientId,
        message.replyTo, message.metadata, message.editedAt, message.deletedAt, message.reactions, message.receipts],
      [room.id, sender.id, 1, 'Hello 🦜', 'image', clientId,
        null, metadata, null, null, [], { recipients: 2, delivered: 0, read: 0 }],
    );
    for (const client of clients) {
      const { receipts, ...heard } = checkMessage(await client.waitFor('message:new'));
      const { receipts: own, ...acknowledged } = message;
      assert.deepEqual(heard, acknowledged);
    }
    await states.assertFresh();
  });

  test('messageType is text unless said otherwise, and system is not for clients', async () => {
    const { room, clients: [client] } = await world.conversation(1);
    assert.equal((await client.send(room.id, 'plain')).messageType, 'text');
    for (const messageType of ['image', 'file', 'text']) {
      assert.equal((await client.send(room.id, 'typed', { messageType })).messageType, messageType);
    }
    for (const messageType of ['system', 'video', '', 5]) {
      await client.refused('validation_failed', 'message:send', { roomId: room.id, content: 'x', messageType });
    }
  });

  test('content is stored verbatim, neither trimmed nor normalised', async () => {
    const { users: [, reader], room, clients: [client] } = await world.conversation(2);
    const states = await world.watch(client);
    for (const content of [' ', '\n\t x \r\n', 'e\u0301 é', '\u200b', '<b>&amp;</b>', '{"a":"\\u0041"}', '👩‍👩‍👧\ufeff', '\u0001\u007f', '𐍈\uffff']) {
      assert.equal((await client.send(room.id, content)).content, content);
      assert.equal((await roomOf(reader, room.id)).lastMessage.content, content);
    }
    await states.assertFresh();
  });

  test('content has 1 to 4000 characters, a character being a Unicode scalar value, and no U+0000', async () => {
    const { room, clients: [client] } = await world.conversation(1);
    for (const content of ['x', 'x'.repeat(4000), '🦜'.repeat(4000)]) {
      assert.equal((await client.send(room.id, content)).content, content);
    }
    for (const content of [undefined, null, 5, ['x'], {}, '', 'x'.repeat(4001), '🦜'.repeat(4001), 'nul\u0000', '\u0000']) {
      await client.refused('validation_failed', 'message:send', { roomId: room.id, content });
    }
    assert.equal((await client.send(room.id, 'next')).seq, 4, 'a refused send takes no seq');
  });

  test('metadata is an object of at most 4 KiB', async () => {
    const { room, clients: [client] } = await world.conversation(1);
    const fits = { text: 'x'.repeat(4096 - '{"text":""}'.length) };
    assert.deepEqual((await client.send(room.id, 'fits', { metadata: fits })).metadata, fits);
    assert.deepEqual((await client.send(room.id, 'none')).metadata, {});
    for (const metadata of ['x', 5, [], [1], true, { text: 'x'.repeat(4096) }, { a: 'nul\u0000' }, { 'nul\u0000': 1 }]) {
      await client.refused('validation_failed', 'message:send', { roomId: room.id, content: 'x', metadata });
    }
  });

  test('a reply names a message of the same room', async () => {
    const { users: [owner], room, clients: [client] } = await world.conversation(1);
    const elsewhere = await client.send((await world.group(owner)).id, 'elsewhere');
    const first = await client.send(room.id, 'first');
    assert.equal((await client.send(room.id, 'reply', { replyTo: first.id })).replyTo, first.id);
    for (const replyTo of [elsewhere.id, randomUUID()]) {
      await client.refused(['not_found', 'validation_failed'], 'message:send', { roomId: room.id, content: 'x', replyTo });
    }
    for (const replyTo of ['', 'first', 1, {}]) {
      await client.refused('validation_failed', 'message:send', { roomId: room.id, content: 'x', replyTo });
    }
  });

  test('null stands for an optional field that is not given', async () => {
    const { room, clients: [client] } = await world.conversation(1);
    const message = await client.send(room.id, 'x', { clientId: null, replyTo: null });
    assert.deepEqual([message.clientId, message.replyTo], [null, null]);
  });

  test('a room that one is not in is not found', async () => {
    const { room } = await world.conversation(1);
    const client = await world.connect(await world.person());
    for (const roomId of [room.id, 2_000_000_000]) {
      await client.refused('not_found', 'message:send', { roomId, content: 'x' });
    }
    for (const roomId of [undefined, null, String(room.id), 1.5, {}]) {
      await client.refused('validation_failed', 'message:send', { roomId, content: 'x' });
    }
  });

  test('the same clientId again answers the first message and broadcasts nothing', async () => {
    const { users: [sender], room, clients: [client, other] } = await world.conversation(2);
    const second = await world.connect(sender);
    const states = await world.watch(client, other);
    const clientId = randomUUID();
    const first = await client.send(room.id, 'once', { clientId });
    const again = await Promise.all([client, second, client].map((from) => from.send(room.id, 'once', { clientId })));
    again.forEach((message) => assert.deepEqual(message, first));
    const next = await client.send(room.id, 'after');
    assert.equal(next.seq, 2, 'a repeated send takes no seq');
    await other.waitFor('message:new', ({ id }) => id === next.id);
    assert.equal(other.all('message:new').length, 2);
    await states.assertFresh();
  });

  test('the same clientId sent many times at once is one message', async () => {
    const { users: [sender], room, clients: [client, other] } = await world.conversation(2);
    const sockets = [client, ...await world.connectAll([sender, sender])];
    const clientId = randomUUID();
    const answers = await Promise.all(Array.from({ length: 12 }, (_, i) => sockets[i % 3].send(room.id, 'once', { clientId })));
    assert.equal(new Set(answers.map(({ id }) => id)).size, 1);
    assert.equal((await client.send(room.id, 'after')).seq, 2);
    await other.waitFor('message:new', ({ seq }) => seq === 2);
    assert.equal(other.all('message:new').length, 2);
  });

  test('the same clientId with another room or content is a conflict, and of another user a message of its own', async () => {
    const { users: [sender], room, clients: [client, other] } = await world.conversation(2);
    const elsewhere = await world.group(sender);
    const clientId = randomUUID();
    const first = await client.send(room.id, 'once', { clientId });
    await client.refused('conflict', 'message:send', { roomId: room.id, content: 'another', clientId });
    await client.refused('conflict', 'message:send', { roomId: elsewhere.id, content: 'once', clientId });
    const theirs = await other.send(room.id, 'once', { clientId });
    assert.notEqual(theirs.id, first.id);
    assert.equal(theirs.seq, 2);
    for (const bad of ['', 'not-a-uuid', 5, {}]) {
      await client.refused('validation_failed', 'message:send', { roomId: room.id, content: 'x', clientId: bad });
    }
  });

  test('a repeated clientId answers the message as it is now, and not_found after leaving the room', async () => {
    const { users: [, sender], room, clients: [, client] } = await world.conversation(2);
    const clientId = randomUUID();
    const first = await client.send(room.id, 'before', { clientId });
    await client.ask('message:edit', { messageId: first.id, content: 'edited' });
    assert.equal((await client.send(room.id, 'before', { clientId })).content, 'edited');
    await client.ask('message:delete', { messageId: first.id });
    const deleted = await client.send(room.id, 'before', { clientId });
    assert.equal(deleted.content, '');
    assert.ok(deleted.deletedAt);
    assert.equal((await sender.api.del(`/rooms/${room.id}/members/${sender.id}`)).status, 204);
    await client.refused('not_found', 'message:send', { roomId: room.id, content: 'before', clientId });
  });

  test('what one socket sends without waiting is stored and acknowledged in that order', async () => {
    const { room, clients: [client, other] } = await world.conversation(2);
    const states = await world.watch(client, other);
    const sent = await sendMany(client, room.id, 200);
    assert.deepEqual(sent.map(({ seq }) => seq), sent.map((_, i) => i + 1));
    assert.deepEqual(client.all('ack').map(({ message }) => message.seq), sent.map((_, i) => i + 1));
    const heard = await other.waitForMany('message:new', 200);
    assert.deepEqual(heard.map(({ content }) => content), sent.map((_, i) => `message ${i + 1}`));
    await states.assertFresh();
  });

  test('a refused send between others keeps their order and leaves no gap', async () => {
    const { room, clients: [client] } = await world.conversation(1);
    const contents = ['one', '', 'two', 'x'.repeat(4001), 'three'];
    const answers = await Promise.all(contents.map((content) => client.emitAck('message:send', { roomId: room.id, content })));
    assert.deepEqual(answers.map(({ ok }) => ok), [true, false, true, false, true]);
    assert.deepEqual(answers.filter(({ ok }) => ok).map(({ message }) => message.seq), [1, 2, 3]);
  });
});

describe('the limit of 10 sends a second', () => {
  const world = useServer({ env: {} });
  const burst = (clients, roomId, count) => Promise.all(Array.from({ length: count }, (_, i) => (
    clients[i % clients.length].emitAck('message:send', { roomId, content: `burst ${i}` }))));
  const isLimited = (answer) => !answer.ok && answer.error.code === 'rate_limited';

  test('the eleventh is refused with the time to wait, after which it passes', async () => {
    const { room, clients: [client, other] } = await world.conversation(2);
    const states = await world.watch(client, other);
    const answers = await burst([client], room.id, 15);
    assert.deepEqual(answers.map(({ ok }) => ok), answers.map((_, i) => i < 10));
    const { retryAfterMs } = await client.refused('rate_limited', 'message:send', { roomId: room.id, content: 'too soon' });
    assert.ok(retryAfterMs <= 1_000);
    await sleep(retryAfterMs + 20);
    assert.equal((await client.send(room.id, 'in time')).seq, 11, 'a refused send takes no seq');
    await other.send(room.id, 'others have a limit of their own');
    await states.assertFresh();
  });

  test('all sockets of a user share it', async () => {
    const { users: [user], room, clients: [client] } = await world.conversation(1);
    const answers = await burst([client, await world.connect(user)], room.id, 20);
    assert.equal(answers.filter(isLimited).length, 10);
  });

  test('repeated and refused sends count too', async () => {
    const { room, clients: [client] } = await world.conversation(1);
    const clientId = randomUUID();
    const sends = [
      ...Array.from({ length: 5 }, () => ({ roomId: room.id, content: 'once', clientId })),
      ...Array.from({ length: 5 }, () => ({ roomId: 2_000_000_000, content: 'nowhere' })),
      { roomId: room.id, content: 'the eleventh' },
    ];
    const answers = await Promise.all(sends.map((payload) => client.emitAck('message:send', payload)));
    answers.slice(0, 5).forEach(accepted);
    assert.ok(isLimited(answers[10]), JSON.stringify(answers[10]));
  });

  test('without a callback the refusal comes as an error event with the time to wait', async () => {
    const { room, clients: [client] } = await world.conversation(1);
    for (let i = 0; i < 12; i += 1) client.socket.emit('message:send', { roomId: room.id, content: `no callback ${i}` });
    const errors = await client.waitForMany('error', 2);
    for (const error of errors) {
      assert.deepEqual([error.event, error.code], ['message:send', 'rate_limited']);
      assert.ok(Number.isInteger(error.retryAfterMs) && error.retryAfterMs > 0);
    }
  });
});
