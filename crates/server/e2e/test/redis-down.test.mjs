// Redis goes away and comes back, the server stays and clients notice nothing.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { UNLIMITED, history, useServer } from '../support/fixture.mjs';
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

describe('an instance that starts while Redis is away', () => {
  const world = useServer({ instances: 2, nodePeers: 0, env: UNLIMITED });

  test('serves alone, and joins the others when Redis is there', async () => {
    const { redis, all } = world.server;
    await redis.stop();
    await all[1].restartAlone('SIGKILL', { ready: 503 });
    const [alice, bob] = await world.people(2);
    const room = await world.group(alice, bob);
    const here = [await world.connect(alice, { at: 1 }), await world.connect(bob, { at: 1 })];
    const alone = await here[0].send(room.id, 'alone');
    await here[1].waitFor('message:new', ({ id }) => id === alone.id);
    const there = await world.connect(bob, { at: 0 });
    world.server.redis = await startRedis(redis.port);
    for (const { url } of all) {
      await until(async () => (await fetch(`${url}/readyz`)).status === 200, { ms: 20_000, what: 'readiness' });
    }
    // Whatever came of them by itself or by looking: all, once, in order.
    const sent = [await here[0].send(room.id, 'to the other instance'), await there.send(room.id, 'and back')];
    for (const client of [here[0], here[1], there]) {
      await client.waitFor('message:new', ({ id }) => id === sent[1].id, { ms: 30_000 });
      const seqs = client.all('message:new').map(({ seq }) => seq);
      assert.deepEqual(seqs, seqs.map((_, i) => seqs[0] + i));
    }
    await until(async () => {
      const { id } = await there.send(room.id, 'at once');
      return here[1].waitFor('message:new', (message) => message.id === id, { ms: 200 }).catch(() => undefined);
    }, { ms: 20_000, what: 'messages to cross at once' });
  });
});
