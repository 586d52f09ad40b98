// Who is typing.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { useServer } from '../support/fixture.mjs';
import { sleep } from '../support/wait.mjs';

describe('typing', () => {
  const world = useServer();
  const isTyping = (value) => (update) => update.isTyping === value;

  test('start and stop reach the others of the room, not the typist on any socket', async () => {
    const { users: [typist], room, clients: [client, other] } = await world.conversation(2);
    const second = await world.connect(typist);
    const stranger = await world.connect(await world.person());
    await client.ask('typing:start', { roomId: room.id });
    assert.deepEqual(await other.waitFor('typing:update'), { roomId: room.id, userId: typist.id, isTyping: true });
    await client.ask('typing:stop', { roomId: room.id });
    assert.deepEqual(await other.waitFor('typing:update', isTyping(false)), { roomId: room.id, userId: typist.id, isTyping: false });
    await second.silence('typing:update', { since: 0 });
    for (const silent of [client, stranger]) assert.deepEqual(silent.all('typing:update'), []);
  });

  test('at most one start a second goes out', async () => {
    const { room, clients: [client, other] } = await world.conversation(2);
    for (let i = 0; i < 10; i += 1) await client.ask('typing:start', { roomId: room.id });
    await sleep(300);
    assert.equal(other.all('typing:update', isTyping(true)).length, 1);
    await sleep(800);
    await client.ask('typing:start', { roomId: room.id });
    await other.waitForMany('typing:update', 2, isTyping(true));
  });

  test('typing stops by itself 3 s after the last start', async () => {
    const { room, clients: [client, other] } = await world.conversation(2);
    await client.ask('typing:start', { roomId: room.id });
    await other.waitFor('typing:update', isTyping(true));
    await sleep(2_000);
    await client.ask('typing:start', { roomId: room.id });
    const renewed = Date.now();
    const { at } = await other.entry('typing:update', isTyping(false), { ms: 6_000 });
    assert.ok(at - renewed >= 2_700 && at - renewed < 5_000, `after ${at - renewed} ms`);
    assert.equal(other.all('typing:update', isTyping(false)).length, 1);
  });

  test('a start that was swallowed by the limit still keeps the typing going', async () => {
    const { room, clients: [client, other] } = await world.conversation(2);
    await client.ask('typing:start', { roomId: room.id });
    await sleep(800);
    await client.ask('typing:start', { roomId: room.id });
    const renewed = Date.now();
    const { at } = await other.entry('typing:update', isTyping(false), { ms: 6_000 });
    assert.ok(at - renewed >= 2_700, `after ${at - renewed} ms`);
  });

  test('one types only in rooms that one is in', async () => {
    const { room } = await world.conversation(1);
    const stranger = await world.connect(await world.person());
    for (const event of ['typing:start', 'typing:stop']) {
      await stranger.refused('not_found', event, { roomId: room.id });
      for (const roomId of [undefined, null, 'x', {}]) await stranger.refused('validation_failed', event, { roomId });
    }
  });
});
