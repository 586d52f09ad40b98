// `createAdapter`: Node.js and Rust servers in one cluster do what four Node.js
// servers do.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { World } from '../support/cluster.mjs';
import { run, compare } from '../support/scenario.mjs';

describe('the classic adapter', () => {
  let expected;
  before(async () => { expected = await run(['node', 'ioredis', 'node', 'ioredis']); });

  test('2 Node.js and 2 Rust servers', async (t) => {
    await compare(t, await run(['ioredis', 'rust', 'node', 'rust']), expected);
  });

  test('a key of its own, and answers to the channel of who asks from some', async (t) => {
    const specific = { SPECIFIC: '1' };
    const kinds = [['rust', specific], ['node', specific], 'rust', 'ioredis'];
    const senders = [0, 1];
    const some = expected.filter(([title]) => !/^from server [23]/.test(title));
    await compare(t, await run(kinds, { env: { KEY: 'chat:socket.io' }, senders }), some);
  });
});

describe('clusters that share a Redis', () => {
  let first;
  let second;
  before(async () => {
    first = await World.start(['rust', 'node']);
    second = await World.start(['rust', 'node'], { env: { KEY: 'socket.io-2' }, redis: first.redis });
  });
  after(async () => { await second?.stop(); await first?.stop(); });

  test('with keys of their own hear nothing of each other', async () => {
    const here = [await first.client(0), await first.client(1)];
    const there = [await second.client(0), await second.client(1)];
    await first.counts(here, 2);
    await second.counts(there, 2);
    await here[0].do('emit', { target: {}, event: 'event', args: [] });
    await here[1].do('emit', { target: { to: ['-2'] }, event: 'event', args: [] });
    assert.deepEqual(await second.sinceThen(there, there[0]), {});
    await here[0].do('disconnect', { target: { to: [here[1].id] }, close: false });
    assert.equal((await there[0].do('fetchSockets', { target: {} })).sockets.length, 2);
  });
});
