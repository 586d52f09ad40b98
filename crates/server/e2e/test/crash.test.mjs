// kill -9 midway: every acknowledged message is there exactly once.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, test } from 'node:test';
import { UNLIMITED, history, useServer } from '../support/fixture.mjs';
import { until } from '../support/wait.mjs';

describe('a crash', () => {
  const world = useServer({ env: UNLIMITED });
  const TOTAL = 1_000;
  const SPEAKERS = 5;

  test('loses nothing that was acknowledged, and what is sent again is stored once', async () => {
    const { users, room, clients } = await world.conversation(SPEAKERS);
    const sends = Array.from({ length: TOTAL }, (_, i) => ({
      speaker: i % SPEAKERS, payload: { roomId: room.id, content: `message ${i}`, clientId: randomUUID() },
    }));
    const acknowledged = new Map();
    for (const { speaker, payload } of sends) {
      clients[speaker].socket.emit('message:send', payload, (answer) => {
        if (answer.ok) acknowledged.set(payload.clientId, answer.message);
      });
    }
    await until(() => acknowledged.size >= TOTAL / 4, { ms: 30_000, every: 1, what: 'a quarter of the acknowledgements' });
    await world.server.kill('SIGKILL');
    await Promise.all(clients.map((client) => client.waitFor('disconnect')));
    const before = new Map(acknowledged);
    assert.ok(before.size < TOTAL, 'the crash came midway');
    await world.server.restart();

    const again = await world.connectAll(users);
    const unanswered = sends.filter(({ payload }) => !before.has(payload.clientId));
    await Promise.all(unanswered.map(async ({ speaker, payload }) => {
      const { message } = await again[speaker].ask('message:send', payload);
      acknowledged.set(payload.clientId, message);
    }));

    const stored = [];
    let after = 0;
    while (after !== null) {
      const page = await history(users[0], room.id, `after=${after}&limit=100`);
      stored.push(...page.messages);
      after = page.nextAfter;
    }
    assert.deepEqual(stored.map(({ seq }) => seq), Array.from({ length: TOTAL }, (_, i) => i + 1), 'no gap, no repeat');
    const byClientId = new Map(stored.map((message) => [message.clientId, message]));
    assert.equal(byClientId.size, TOTAL, 'each exactly once');
    for (const { payload } of sends) {
      const { id, seq } = acknowledged.get(payload.clientId);
      const message = byClientId.get(payload.clientId);
      assert.deepEqual([message.id, message.seq, message.content], [id, seq, payload.content]);
    }
  });
});
