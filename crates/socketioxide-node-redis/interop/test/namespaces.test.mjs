// Namespaces that come and go, and connections that Redis ends.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { World } from '../support/cluster.mjs';
import { until } from '../support/wait.mjs';

describe('dynamic namespaces', () => {
  let world;
  before(async () => { world = await World.start(['rust', 'node', 'rust']); });
  after(() => world?.stop());

  test('one that is deleted is not waited for, and can come back', async () => {
    const nsp = '/room-gone';
    const clients = [];
    for (const n of [0, 1, 2]) clients.push(await world.client(n, { nsp }));
    await world.counts(clients, 3);
    const main = await world.client(0);
    await main.do('deleteNamespace', { nsp });
    const rest = clients.slice(1);
    await world.counts(rest, 2);
    for (const client of rest) assert.equal((await client.do('fetchSockets', { target: {} })).sockets.length, 2);

    const back = await world.client(0, { nsp });
    await world.counts([back, ...rest], 3);
    for (const by of [back, ...rest]) {
      const { events } = await world.received([back, ...rest], by, 'emit', { target: {}, event: 'event', args: [] });
      assert.deepEqual(Object.values(events), [[['event']], [['event']], [['event']]]);
    }
  });

  test('many clients may come first', async () => {
    const nsp = '/room-rush';
    const clients = await Promise.all(Array.from({ length: 8 }, (_, n) => world.client(n % 2, {
      nsp, name: `rush ${n}`, reconnection: true, reconnectionDelay: 50,
    })));
    await world.counts(clients, 2);
    for (const by of clients.slice(0, 2)) {
      const { events } = await world.received(clients, by, 'emit', { target: {}, event: 'event', args: [] });
      assert.equal(Object.keys(events).length, 8);
      assert.equal((await by.do('fetchSockets', { target: {} })).sockets.length, 8);
    }
  });
});

for (const PROTOCOL of ['classic', 'sharded']) {
  test(`a subscription that Redis cuts comes back once (${PROTOCOL})`, async () => {
    const world = await World.start(['rust', 'ioredis', 'rust'], { env: { PROTOCOL } });
    try {
      const clients = [];
      for (const n of [0, 1, 2]) clients.push(await world.client(n));
      await world.counts(clients, 3);
      const notices = async (client) => (await client.do('log')).notices.filter(({ resubscribed }) => resubscribed === '/').length;
      for (let round = 1; round <= 3; round += 1) {
        await world.redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub');
        for (const client of [clients[0], clients[2]]) await until(async () => await notices(client) === round, 'a notice');
        await world.counts(clients, 3);
        for (const by of clients) {
          const { events } = await world.received(clients, by, 'emit', { target: {}, event: 'event', args: [] });
          assert.deepEqual(Object.values(events), [[['event']], [['event']], [['event']]]);
        }
      }
    } finally {
      await world.stop();
    }
  });
}
