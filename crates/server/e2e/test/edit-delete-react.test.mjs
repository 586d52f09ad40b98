// Changing what was said.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, test } from 'node:test';
import { checkMessage } from '../support/expect.mjs';
import { history, setRole, useServer } from '../support/fixture.mjs';

describe('editing, deleting, reacting', () => {
  const world = useServer();
  const hearUpdate = (clients, matches) => Promise.all(clients.map((client) => client.waitFor('message:updated', matches)));

  /** A group where the second person has said something. */
  async function said(people = 3) {
    const { users, room, clients } = await world.conversation(people);
    const message = await clients[1].send(room.id, 'first words', { metadata: { a: 1 } });
    return { users, room, clients, message, states: await world.watch(...clients) };
  }

  /** Asserts that `act` reaches nobody: what follows it is the next thing that the others hear. */
  async function silently(client, listener, roomId, act) {
    const since = listener.mark();
    await act();
    const marker = await client.send(roomId, 'a marker');
    await listener.waitFor('message:new', ({ id }) => id === marker.id);
    await listener.silence('message:updated', { since });
  }

  test('the sender edits, and everyone hears message:updated, the editor included', async () => {
    const { users: [, sender], clients, message, states } = await said();
    const { message: edited } = await clients[1].ask('message:edit', { messageId: message.id, content: ' new 🦜 ' });
    checkMessage(edited, sender.id);
    assert.equal(edited.content, ' new 🦜 ');
    assert.ok(edited.editedAt);
    assert.deepEqual({ ...edited, content: message.content, editedAt: null }, message);
    const heard = await hearUpdate(clients, ({ id }) => id === message.id);
    heard.forEach((update) => assert.equal(checkMessage(update).content, ' new 🦜 '));
    await states.assertFresh();
  });

  test('only the sender edits', async () => {
    const { users: [owner], room, clients, message, states } = await said();
    await clients[0].refused('forbidden', 'message:edit', { messageId: message.id, content: 'x' });
    const stranger = await world.connect(await world.person());
    await stranger.refused('not_found', 'message:edit', { messageId: message.id, content: 'x' });
    await clients[1].refused('not_found', 'message:edit', { messageId: randomUUID(), content: 'x' });
    await states.assertFresh();
    assert.equal((await history(owner, room.id)).messages[0].editedAt, null);
  });

  test('an edit keeps the limits of content', async () => {
    const { clients: [, client], message } = await said();
    await client.ask('message:edit', { messageId: message.id, content: '🦜'.repeat(4000) });
    for (const content of [undefined, null, 5, '', '🦜'.repeat(4001), 'nul\u0000']) {
      await client.refused('validation_failed', 'message:edit', { messageId: message.id, content });
    }
    for (const messageId of [undefined, null, 5, 'x', '']) {
      await client.refused('validation_failed', 'message:edit', { messageId, content: 'x' });
    }
  });

  test('a message of a room that one has left is not found', async () => {
    const { users: [, sender], room, clients: [, client], message } = await said();
    assert.equal((await sender.api.del(`/rooms/${room.id}/members/${sender.id}`)).status, 204);
    for (const [event, more] of [['message:edit', { content: 'x' }], ['message:delete', {}], ['reaction:add', { emoji: '👍' }], ['reaction:remove', { emoji: '👍' }]]) {
      await client.refused('not_found', event, { messageId: message.id, ...more });
    }
  });

  test('the sender deletes, and an empty message remains in its place', async () => {
    const { users: [owner], room, clients, message, states } = await said();
    await clients[0].ask('reaction:add', { messageId: message.id, emoji: '👍' });
    await clients[1].ask('message:delete', { messageId: message.id });
    const heard = await hearUpdate(clients, ({ deletedAt }) => deletedAt);
    for (const update of [...heard, ...(await history(owner, room.id)).messages]) {
      assert.deepEqual([update.id, update.seq, update.content, update.metadata, update.reactions], [message.id, 1, '', {}, []]);
      assert.ok(update.deletedAt);
    }
    await states.assertFresh();
    assert.equal((await clients[1].send(room.id, 'next')).seq, 2);
    await states.assertFresh();
  });

  test('owner and admin delete what others said, a member may not', async () => {
    const { users: [owner, , admin], room, clients, message, states } = await said(4);
    await setRole(owner, room.id, admin, 'admin');
    const second = await clients[1].send(room.id, 'second');
    await clients[3].refused('forbidden', 'message:delete', { messageId: message.id });
    await clients[0].ask('message:delete', { messageId: message.id });
    await clients[2].ask('message:delete', { messageId: second.id });
    await states.assertFresh();
    const stranger = await world.connect(await world.person());
    await stranger.refused('not_found', 'message:delete', { messageId: message.id });
    await clients[0].refused('not_found', 'message:delete', { messageId: randomUUID() });
    await clients[0].refused('validation_failed', 'message:delete', { messageId: 'x' });
  });

  test('deleting again succeeds and changes nothing, editing what is deleted is a conflict', async () => {
    const { room, clients, message, states } = await said();
    await clients[1].ask('message:delete', { messageId: message.id });
    await states.assertFresh();
    await silently(clients[1], clients[0], room.id, () => clients[1].ask('message:delete', { messageId: message.id }));
    await clients[1].refused('conflict', 'message:edit', { messageId: message.id, content: 'back' });
    await clients[0].emitAck('reaction:add', { messageId: message.id, emoji: '👍' });
    await states.assertFresh();
  });

  test('reactions gather by emoji and user, and one without users disappears', async () => {
    const { users, clients, message, states } = await said();
    const [owner, , third] = users.map(({ id }) => id);
    const react = async (client, event, emoji) => (await client.ask(event, { messageId: message.id, emoji })).reactions
      .map((reaction) => ({ emoji: reaction.emoji, userIds: [...reaction.userIds].sort((a, b) => a - b) }));
    assert.deepEqual(await react(clients[0], 'reaction:add', '👍'), [{ emoji: '👍', userIds: [owner] }]);
    const heard = await hearUpdate(clients, ({ reactions }) => reactions.length === 1);
    heard.forEach((update) => assert.deepEqual(update.reactions, [{ emoji: '👍', userIds: [owner] }]));
    assert.deepEqual(await react(clients[2], 'reaction:add', '👍'), [{ emoji: '👍', userIds: [owner, third].sort((a, b) => a - b) }]);
    const two = await react(clients[2], 'reaction:add', '👩‍👩‍👧');
    assert.deepEqual(two.map(({ emoji }) => emoji).sort(), ['👍', '👩‍👩‍👧'].sort());
    await states.assertFresh();
    await react(clients[2], 'reaction:remove', '👩‍👩‍👧');
    await states.assertFresh();
    assert.deepEqual(await react(clients[0], 'reaction:remove', '👍'), [{ emoji: '👍', userIds: [third] }]);
    assert.deepEqual(await react(clients[2], 'reaction:remove', '👍'), []);
    await states.assertFresh();
  });

  test('adding twice and removing what is not there succeed and broadcast nothing', async () => {
    const { room, clients, message, states } = await said();
    await clients[0].ask('reaction:add', { messageId: message.id, emoji: '👍' });
    await clients[2].waitFor('message:updated');
    await silently(clients[0], clients[2], room.id, async () => {
      const { reactions } = await clients[0].ask('reaction:add', { messageId: message.id, emoji: '👍' });
      assert.equal(reactions.length, 1);
      await clients[0].ask('reaction:remove', { messageId: message.id, emoji: '🦜' });
      await clients[1].ask('reaction:remove', { messageId: message.id, emoji: '👍' });
    });
    await states.assertFresh();
  });

  test('an emoji has 1 to 32 characters', async () => {
    const { clients: [client], message } = await said();
    await client.ask('reaction:add', { messageId: message.id, emoji: '🦜'.repeat(32) });
    for (const event of ['reaction:add', 'reaction:remove']) {
      for (const emoji of [undefined, null, 5, '', '🦜'.repeat(33), 'nul\u0000']) {
        await client.refused('validation_failed', event, { messageId: message.id, emoji });
      }
      await client.refused('validation_failed', event, { messageId: 'x', emoji: '👍' });
      await client.refused('not_found', event, { messageId: randomUUID(), emoji: '👍' });
    }
    const stranger = await world.connect(await world.person());
    await stranger.refused('not_found', 'reaction:add', { messageId: message.id, emoji: '👍' });
  });
});
