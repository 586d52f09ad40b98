// PostgreSQL goes away and comes back, the server stays.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, test } from 'node:test';
import { history, useServer, UNLIMITED } from '../support/fixture.mjs';
import { refused } from '../support/expect.mjs';
import { until, within } from '../support/wait.mjs';

describe('without PostgreSQL', () => {
  const world = useServer({ env: UNLIMITED, proxyDatabase: true });
  /** Of the instance that is worst off. */
  const readiness = async () => Math.max(...await Promise.all(world.server.urls.map(async (url) => (
    (await fetch(`${url}/readyz`, { headers: { connection: 'close' } })).status))));

  /** Emits with a bound of its own: an outage may take longer than an ordinary answer. */
  const attempt = (client, payload, ms) => within(ms, 'an answer during the outage', new Promise((resolve) => {
    client.socket.emit('message:send', payload, resolve);
  }));

  for (const [name, outage, ms] of [['refuses connections', 'cut', 5_000], ['falls silent', 'silence', 15_000]]) {
    test(`when it ${name}, the answer is unavailable, sockets stay, and it works again without a restart`, async () => {
      const { users: [sender, reader], room, clients: [client, other] } = await world.conversation(2);
      await client.send(room.id, 'before');
      const { pid } = world.server;
      world.server.proxy[outage]();
      const clientId = randomUUID();
      try {
        const answer = await attempt(client, { roomId: room.id, content: 'during', clientId }, ms);
        assert.deepEqual([answer.ok, answer.error?.code], [false, 'unavailable']);
        refused(await sender.api.get('/rooms'), 503, 'unavailable');
        assert.equal(await readiness(), 503);
        assert.equal((await fetch(`${world.url}/healthz`)).status, 200, 'the process itself is well');
        await client.refused('validation_failed', 'message:send', { roomId: room.id });
      } finally {
        world.server.proxy.mend();
      }
      await until(async () => (await readiness()) === 200, { ms: 15_000, what: 'readiness' });
      const message = await until(async () => {
        const answer = await attempt(client, { roomId: room.id, content: 'during', clientId }, ms);
        return answer.ok && answer.message;
      }, { ms: 15_000, every: 200, what: 'a send to succeed' });
      await other.waitFor('message:new', ({ id }) => id === message.id);
      const { messages } = await history(reader, room.id);
      assert.deepEqual(messages.map(({ seq, content }) => [seq, content]), [[1, 'before'], [2, 'during']]);
      assert.deepEqual([...client.all('disconnect'), ...other.all('disconnect')], []);
      assert.equal(world.server.pid, pid);
    });
  }

  test('once it is known to be away, nothing waits for it: a thousand calls are answered while one would time out', async () => {
    const { users: [sender], room, clients: [client] } = await world.conversation(1);
    world.server.proxy.silence();
    try {
      // The first ones wait until it is noticed.
      const known = async () => {
        const { log } = world.server;
        return log.lastIndexOf('PostgreSQL does not answer') > log.lastIndexOf('PostgreSQL answers again');
      };
      await until(known, { ms: 15_000, what: 'the outage to be noticed' });
      const slow = client.entries('disconnect');
      assert.deepEqual(slow, []);
      const answers = [];
      for (let i = 0; i < 1000; i += 1) {
        answers.push(client.socket.timeout(30_000).emitWithAck('message:delivered', { roomId: room.id, messageIds: [randomUUID()] }));
      }
      // One after the other on one socket: with a wait of two seconds each they would take half an hour.
      const codes = new Set((await Promise.all(answers)).map(({ error }) => error?.code));
      assert.deepEqual([...codes], ['unavailable']);
      refused(await sender.api.get('/rooms'), 503, 'unavailable');
    } finally {
      world.server.proxy.mend();
    }
    await until(async () => (await readiness()) === 200, { ms: 15_000, what: 'readiness' });
  });

  test('nothing is acknowledged that is not stored, when it breaks amid sends', async () => {
    const { users: [sender], room, clients: [client] } = await world.conversation(1);
    const answers = [];
    for (let i = 0; i < 300; i += 1) {
      client.socket.emit('message:send', { roomId: room.id, content: `${i}`, clientId: randomUUID() }, (answer) => answers.push(answer));
    }
    await until(() => answers.length >= 50, { every: 1, what: '50 answers' });
    world.server.proxy.cut();
    try {
      await until(() => answers.some(({ ok }) => !ok) || answers.length === 300, { ms: 10_000, what: 'a refusal' });
    } finally {
      world.server.proxy.mend();
    }
    await until(() => answers.length === 300, { ms: 20_000, what: 'all answers' });
    await until(async () => (await readiness()) === 200, { ms: 15_000, what: 'readiness' });
    const stored = [];
    let after = 0;
    while (after !== null) {
      const page = await history(sender, room.id, `after=${after}&limit=100`);
      stored.push(...page.messages);
      after = page.nextAfter;
    }
    assert.deepEqual(stored.map(({ seq }) => seq), stored.map((_, i) => i + 1), 'no gap');
    const ids = new Set(stored.map(({ id }) => id));
    for (const { ok, message, error } of answers) {
      if (ok) assert.ok(ids.has(message.id), `${message.content} was acknowledged and is not there`);
      else assert.equal(error.code, 'unavailable');
    }
  });
});
