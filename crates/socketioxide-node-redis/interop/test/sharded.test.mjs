// `createShardedAdapter`: with `subscriptionMode: 'static'` all works; what does not
// in the other modes is written down here too.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { World } from '../support/cluster.mjs';
import { compare, run } from '../support/scenario.mjs';

const env = { PROTOCOL: 'sharded' };

describe('the sharded adapter', () => {
  test('2 Node.js servers in static mode, and 2 Rust servers', async (t) => {
    const senders = [0, 1, 2];
    const expected = await run(['node', 'ioredis', 'node', 'ioredis'], { env, senders });
    await compare(t, await run(['ioredis', 'rust', 'node', 'rust'], { env: { ...env, KEY: 'chat' }, senders }), expected);
  });
});

for (const MODE of ['dynamic', 'dynamic-private']) {
  describe(`the sharded adapter of Node.js in ${MODE} mode`, () => {
    let world;
    let rust;
    let node;
    let both;
    before(async () => {
      world = await World.start(['rust', 'node'], { env: { ...env, MODE } });
      both = [rust, node] = [await world.client(0), await world.client(1)];
      await world.counts(both, 2);
      for (const client of both) await client.do('enter', { rooms: ['r1', 'r2'] });
    });
    after(() => world?.stop());

    const got = async (by, target) => {
      const { events } = await world.received(both, by, 'emit', { target, event: 'event', args: [] });
      return Object.keys(events).sort();
    };

    test('reaches Rust with all and with several rooms', async () => {
      assert.deepEqual(await got(node, {}), ['c0', 'c1']);
      assert.deepEqual(await got(node, { to: ['r1', 'r2'] }), ['c0', 'c1']);
      assert.deepEqual(await got(node, { except: ['r3'] }), ['c0', 'c1']);
    });

    test('does not reach Rust with a single room', async () => {
      assert.deepEqual(await got(node, { to: ['r1'] }), ['c1']);
      // The id of a Rust socket has 16 characters: not what Node.js takes for an id.
      assert.deepEqual(await got(node, { to: [rust.id] }), []);
    });

    test('is reached by Rust with everything', async () => {
      for (const target of [{}, { to: ['r1'] }, { to: ['r1', 'r2'] }]) assert.deepEqual(await got(rust, target), ['c0', 'c1']);
      assert.deepEqual(await got(rust, { to: [node.id] }), ['c1']);
    });

    test('asks and is asked', async () => {
      for (const by of both) {
        const { sockets } = await by.do('fetchSockets', { target: { to: ['r1'] } });
        assert.equal(sockets.length, 2);
        const acks = await by.do('emitWithAck', { target: { to: ['r1'] }, event: 'ask', args: [], timeout: 30_000 });
        assert.equal(acks.length, 2);
        assert.equal((await by.do('serverSideEmitWithAck', { event: 'ask', args: [] })).answers.length, 1);
      }
    });
  });
}
