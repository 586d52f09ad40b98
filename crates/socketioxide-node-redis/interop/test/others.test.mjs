// Who else is on the same Redis: emitters that are no server, older adapters, and
// what JavaScript can say that Rust can't.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Emitter } from '@socket.io/redis-emitter';
import { Redis } from 'ioredis';
import { sorted, World } from '../support/cluster.mjs';
import { inRoom } from '../support/scenario.mjs';
import { until } from '../support/wait.mjs';

describe('@socket.io/redis-emitter', () => {
  let world;
  let clients;
  let connection;
  let emitter;
  let markers = 0;
  before(async () => {
    world = await World.start(['rust', 'node'], { env: { KEY: 'chat' } });
    clients = [];
    for (const n of [0, 0, 1, 1]) clients.push(await world.client(n));
    await world.counts(clients, 2);
    for (const n of [0, 2]) await clients[n].do('enter', { rooms: ['r1', 'zażółć#'] });
    connection = new Redis(world.redis.url);
    emitter = new Emitter(connection, { key: 'chat' });
  });
  after(async () => { connection?.disconnect(); await world?.stop(); });

  /** What each of the four clients receives of this. */
  async function heard(speak) {
    speak();
    markers += 1;
    emitter.emit(`marker ${markers}`);
    const all = [];
    for (const client of clients) all.push(world.named(await client.upTo(`marker ${markers}`)));
    return all;
  }

  test('emits to all, to rooms, to all but rooms, and to a socket id', async () => {
    const event = ['event', 'zażółć', 1.5, { deep: [null] }];
    assert.deepEqual(await heard(() => emitter.emit(...event)), [[event], [event], [event], [event]]);
    assert.deepEqual(await heard(() => emitter.to('r1').emit(...event)), [[event], [], [event], []]);
    assert.deepEqual(await heard(() => emitter.to('zażółć#').to('nobody').emit(...event)), [[event], [], [event], []]);
    assert.deepEqual(await heard(() => emitter.except('r1').emit(...event)), [[], [event], [], [event]]);
    for (const [n, { id }] of clients.entries()) {
      const all = [[], [], [], []];
      all[n] = [event];
      assert.deepEqual(await heard(() => emitter.to(id).emit(...event)), all);
    }
  });

  test('emits binary and dates', async () => {
    const event = ['event', Buffer.from([1, 2]), { date: new Date(1e12), bytes: [Buffer.from('x')] }];
    const got = ['event', { bytes: '0102' }, { date: '2001-09-09T01:46:40.000Z', bytes: [{ bytes: '78' }] }];
    assert.deepEqual(await heard(() => emitter.to('r1').emit(...event)), [[got], [], [got], []]);
  });

  test('makes sockets join and leave rooms', async () => {
    emitter.in('r1').socketsJoin(['r2', 'r3']);
    for (const client of clients) await inRoom(client, 'r3', 2);
    assert.deepEqual(await heard(() => emitter.to('r2').emit('event')), [[['event']], [], [['event']], []]);
    emitter.socketsLeave(['r2', 'r3']);
    for (const client of clients) await inRoom(client, 'r3', 0);
    assert.deepEqual(await heard(() => emitter.to('r2').emit('event')), [[], [], [], []]);
  });

  test('emits to servers', async () => {
    emitter.serverSideEmit('tell', 'from outside', { a: [1] });
    for (const client of [clients[0], clients[2]]) {
      const events = await until(async () => {
        const log = await client.do('log');
        return log.events.length > 0 && log.events;
      }, 'the server hears it');
      assert.deepEqual(events, [{ nsp: '/', event: 'tell', args: ['from outside', { a: [1] }], answer: false }]);
    }
  });

  test('emits in other namespaces', async () => {
    const admins = [await world.client(0, { nsp: '/admin' }), await world.client(1, { nsp: '/admin' })];
    emitter.of('/admin').emit('event', 'admin');
    emitter.of('/admin').emit('end');
    for (const admin of admins) assert.deepEqual(await admin.upTo('end'), [['event', 'admin']]);
    assert.deepEqual(await heard(() => {}), [[], [], [], []]);
  });

  test('disconnects sockets', async () => {
    emitter.in(clients[0].id).disconnectSockets();
    emitter.in(clients[2].id).disconnectSockets(true);
    await until(() => clients[0].disconnected && clients[2].disconnected, 'both are disconnected');
    assert.deepEqual(clients.map(({ disconnected }) => disconnected), ['io server disconnect', undefined, 'io server disconnect', undefined]);
  });
});

describe('@socket.io/redis-adapter 7.1 on a Node.js server', () => {
  let world;
  let rust;
  let node;
  let both;
  before(async () => {
    world = await World.start(['rust', ['node', { ADAPTER: '7' }]], { env: { REQUESTS_TIMEOUT: '5000' } });
    both = [rust, node] = [await world.client(0), await world.client(1)];
    await world.counts([rust], 2);
    for (const client of both) await client.do('enter', { rooms: ['r1', client.name] });
  });
  after(() => world?.stop());

  test('broadcasts cross both ways', async () => {
    const binary = [Buffer.from('x'), { deep: [1.5, null, 'zażółć'] }];
    for (const by of both) {
      for (const target of [{}, { to: ['r1'] }, { to: ['c0', 'c1'] }, { except: ['r2'] }]) {
        const { events } = await world.received(both, by, 'emit', { target, event: 'event', args: binary });
        const one = [['event', { bytes: '78' }, binary[1]]];
        assert.deepEqual(world.named(events), { c0: one, c1: one });
      }
      const { events } = await world.received(both, by, 'emit', { target: { to: ['r1'], except: [by.id] }, event: 'event', args: [] });
      assert.deepEqual(Object.keys(events), [by === rust ? 'c1' : 'c0']);
    }
  });

  test('sockets and rooms are listed both ways', async () => {
    for (const by of both) {
      const { sockets } = await by.do('fetchSockets', { target: { to: ['r1'] } });
      assert.deepEqual(sorted(world.named(sockets.map(({ id }) => id))), ['<c0>', '<c1>']);
      assert.deepEqual(sorted(sockets.map(({ data }) => data.server)), ['s0', 's1']);
      assert.deepEqual(sorted(world.named(await by.do('allRooms'))), ['<c0>', '<c1>', 'c0', 'c1', 'r1']);
    }
    assert.deepEqual(sorted(world.named(await node.do('allSockets'))), ['<c0>', '<c1>']);
  });

  test('sockets are made to join and leave both ways', async () => {
    for (const by of both) {
      await by.do('join', { target: { to: ['r1'] }, rooms: ['r2'] });
      for (const client of both) await inRoom(client, 'r2', 2);
      await by.do('leave', { target: {}, rooms: ['r2'] });
      for (const client of both) await inRoom(client, 'r2', 0);
    }
  });

  test('servers ask each other', async () => {
    for (const by of both) {
      const { answers } = await by.do('serverSideEmitWithAck', { event: 'ask', args: [1] });
      assert.deepEqual(answers, [{ from: by === rust ? 's1' : 's0', args: [1] }]);
    }
  });

  test('its version knows no acknowledged broadcasts', async () => {
    // It takes the request for one of a kind it does not know, and is silent.
    const acks = await rust.do('emitWithAck', { target: {}, event: 'ask', args: [], timeout: 500 });
    assert.deepEqual(acks.map(({ from }) => from), ['c0']);
  });

  test('sockets are disconnected both ways', async () => {
    const guests = [await world.client(0), await world.client(1)];
    for (const by of [guests[0], guests[1]]) {
      const other = by === guests[0] ? guests[1] : guests[0];
      if (by.disconnected) break;
      await by.do('disconnect', { target: { to: [other.id] }, close: false });
      await until(() => other.disconnected, 'it is disconnected');
    }
    const late = await world.client(0);
    await node.do('disconnect', { target: { to: [late.id] }, close: true });
    await until(() => late.disconnected === 'io server disconnect', 'it is disconnected');
  });
});

describe('what only JavaScript can say', () => {
  let world;
  let clients;
  before(async () => {
    world = await World.start(['node', 'rust', 'node']);
    clients = [];
    for (let n = 0; n < 3; n += 1) clients.push(await world.client(n));
    await world.counts(clients, 3);
  });
  after(() => world?.stop());

  test('odd values reach clients of Rust servers as those of other Node.js servers', async () => {
    const { events } = await world.received(clients, clients[0], 'emitOddValues', { target: {}, event: 'odd' });
    const { c1, c2 } = world.named(events);
    assert.equal(c2.length, 1);
    assert.deepEqual(c1, c2);
  });

  test('a number as a room is the room of that text for Rust; Node.js tells them apart', async () => {
    for (const client of clients) await client.do('enter', { rooms: ['123'] });
    const { events } = await world.received(clients, clients[0], 'emitNumberRooms', { event: 'event' });
    assert.deepEqual(events, { c1: [['event'], ['event']] });
  });

  test('numbers beyond 64 bits stay what they are when Rust sends them', async () => {
    const args = [1e21, -1e300, 2 ** 60];
    const { events } = await world.received(clients, clients[1], 'emit', { target: {}, event: 'event', args });
    for (const client of clients) assert.deepEqual(events[client.name], [['event', ...args]]);
  });
});
