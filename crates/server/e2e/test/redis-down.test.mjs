// Redis goes away and comes back, the server stays and clients notice nothing.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { history, useServer } from '../support/fixture.mjs';
import { run, startRedis } from '../support/server.mjs';
import { until } from '../support/wait.mjs';

describe('without Redis', () => {
  const world = useServer({ instances: 1, nodePeers: 0, withRedis: true });
  const readiness = async () => {
    const response = await fetch(`${world.url}/readyz`, { headers: { connection: 'close' } });
    const { status, redis } = await response.json();
    return [response.status, status, redis];
  };

  test('it is degraded, and serves all the same: sends, the limit, presence, history', async () => {
    const { users: [sender, reader], room, clients: [client, other] } = await world.conversation(2);
    assert.deepEqual(await readiness(), [200, 'ready', 'up']);
    await client.send(room.id, 'before');
    const { redis } = world.server;
    await redis.stop();
    try {
      await until(async () => (await readiness())[0] === 503, { ms: 10_000, what: 'not to be ready' });
      assert.deepEqual(await readiness(), [503, 'degraded', 'down']);
      const message = await client.send(room.id, 'during');
      await other.waitFor('message:new', ({ id }) => id === message.id);
      const answers = await Promise.all(Array.from({ length: 30 }, (_, n) => client.socket.emitWithAck(
        'message:send',
        { roomId: room.id, content: `${n}` },
      )));
      const refused = answers.filter(({ ok }) => !ok);
      assert.ok(refused.length > 0 && refused.every(({ error }) => error.code === 'rate_limited'));
      const { presence: [{ status }] } = await client.socket.emitWithAck('presence:query', { userIds: [reader.id] });
      assert.equal(status, 'online');
      other.socket.disconnect();
      await client.waitFor('presence:update', (update) => update.userId === reader.id && update.status === 'offline');
      const { messages } = await history(sender, room.id);
      assert.deepEqual(messages.slice(0, 2).map(({ content }) => content), ['before', 'during']);
    } finally {
      world.server.redis = await startRedis(redis.port);
    }
    await until(async () => (await readiness())[0] === 200, { ms: 15_000, what: 'readiness' });
    assert.deepEqual(client.all('disconnect'), []);
    assert.equal((await history(sender, room.id, 'limit=50')).messages[0].content, 'before');
    // Each loss once, not each attempt to connect.
    assert.ok(world.server.log.split('\n').filter((line) => /WARN/.test(line)).length < 20, world.server.log);
  });
});

test('a REDIS_URL that is none is told before a port is bound, and not repeated', async () => {
  const { code, stderr } = await run(['serve'], {
    DATABASE_URL: 'postgres://localhost/starling',
    JWT_SECRET: 'an-end-to-end-secret-of-forty-characters',
    REDIS_URL: 'localhost:6379/hunter2',
  });
  assert.equal(code, 2);
  assert.match(stderr, /REDIS_URL.*redis:\/\//s);
  assert.doesNotMatch(stderr, /hunter2/);
});
