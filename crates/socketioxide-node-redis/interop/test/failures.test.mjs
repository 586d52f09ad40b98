// Servers that die, a Redis that goes and comes back, and floods.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { World } from '../support/cluster.mjs';
import { pause, until } from '../support/wait.mjs';

describe('a server that hangs and is killed while others ask', () => {
  let world;
  let clients;
  before(async () => {
    world = await World.start(['rust', 'node', 'rust', 'ioredis'], { env: { REQUESTS_TIMEOUT: '1500' } });
    clients = [];
    for (let n = 0; n < 4; n += 1) clients.push(await world.client(n));
    await world.counts(clients, 4);
  });
  after(() => world?.stop());

  const names = (answers) => answers.map(({ from }) => from).sort();

  async function check(victim, living) {
    const before = await Promise.all(clients.map((client, n) => (living.includes(n)
      ? client.do('log').then(({ events }) => events.filter(({ event }) => event === 'ask').length) : 0)));
    await world.peers[victim].freeze();
    const asking = living.map((n) => {
      const by = (op, fields) => clients[n].do(op, fields);
      return Promise.all([
        by('fetchSockets', { target: {} }).catch((error) => error.message),
        by('emitWithAck', { target: {}, event: 'ask', args: [], timeout: 1500 }),
        by('serverSideEmitWithAck', { event: 'ask', args: [] }),
      ]);
    });
    // All have asked once each hears all others; what they had to find out before
    // is given some time.
    const heard = async (n) => (await clients[n].do('log')).events.filter(({ event }) => event === 'ask').length;
    for (const n of living) await until(async () => await heard(n) >= before[n] + living.length - 1, 'they have asked');
    await pause(300);
    await world.peers[victim].kill();
    for (const [i, [fetched, acks, told]] of (await Promise.all(asking)).entries()) {
      const n = living[i];
      const here = living.map((one) => `c${one}`);
      const others = living.filter((one) => one !== n).map((one) => `s${one}`);
      assert.deepEqual(names(acks), here, `acks of c${n}`);
      assert.deepEqual(names(told.answers), others, `servers that c${n} asked`);
      if (world.peers[n].kind === 'rust') {
        assert.deepEqual([fetched.sockets.length, fetched.missing, told.missing], [living.length, 1, 1]);
      } else {
        // What came is lost with Node.js.
        assert.match(fetched, /timeout reached/);
        assert.match(told.error, new RegExp(`only ${others.length} responses received out of ${others.length + 1}`));
      }
    }
    const rest = living.map((n) => clients[n]);
    await world.counts(rest, living.length);
    for (const client of rest) {
      const { sockets, missing } = await client.do('fetchSockets', { target: {} });
      assert.deepEqual([sockets.length, missing], [living.length, 0]);
      const acks = await client.do('emitWithAck', { target: {}, event: 'ask', args: [], timeout: 30_000 });
      assert.equal(acks.length, living.length);
      const { answers } = await client.do('serverSideEmitWithAck', { event: 'ask', args: [] });
      assert.equal(answers.length, living.length - 1);
    }
  }

  test('a Rust server', () => check(2, [0, 1, 3]));
  test('a Node.js server', () => check(3, [0, 1]));
});

const PROTOCOLS = { classic: ['SIGTERM', 'SIGKILL'], sharded: ['SIGKILL'] };
for (const [PROTOCOL, signals] of Object.entries(PROTOCOLS)) {
  describe(`Redis goes and comes back during traffic (${PROTOCOL})`, () => {
    let world;
    let clients;
    before(async () => {
      world = await World.start(['rust', 'node', 'rust', 'ioredis'], { env: { PROTOCOL } });
      clients = [];
      for (let n = 0; n < 4; n += 1) clients.push(await world.client(n));
      await world.counts(clients, 4);
    });
    after(() => world?.stop());

    const numbers = (client, event) => client.received.filter(([name]) => name === event).map(([, n]) => n);
    const resubscribed = async (client) => {
      const { notices } = await client.do('log');
      return notices.filter((notice) => notice.resubscribed === '/').length;
    };

    for (const [round, signal] of signals.entries()) {
      test(`${signal}: all resume, and what each server says stays in its order`, async () => {
        const next = clients.map(() => 0);
        const speak = async (n, count) => {
          await clients[n].do('stream', { event: `${signal} ${n}`, from: next[n], count });
          next[n] += count;
        };
        let speaking = true;
        const speakers = clients.map(async (_, n) => {
          while (speaking) {
            await speak(n, 20);
            await pause(5);
          }
        });
        const reach = (some) => until(
          () => clients.every((client) => clients.every((_, n) => numbers(client, `${signal} ${n}`).some((number) => number >= some[n]))),
          'all hear all',
        );
        await reach(clients.map(() => 100));
        await world.redis.down(signal);
        const then = next.map((n) => n + 20);
        await until(() => next.every((n, i) => n >= then[i]), 'all speak on, to nobody');
        await world.redis.up();
        await world.counts(clients, 4);
        for (const n of [0, 2]) await until(async () => await resubscribed(clients[n]) === round + 1, 'a notice');
        await reach(next.map((n) => n + 100));
        speaking = false;
        await Promise.all(speakers);
        await reach(next.map((n) => n - 1));

        for (const client of clients) {
          for (const n of clients.keys()) {
            const heard = numbers(client, `${signal} ${n}`);
            // Publications that were under way when the connection broke may be sent
            // again, all of them in their order, by the libraries of Node.js; never by Rust.
            const counted = n % 2 === 0 ? heard : [...new Set(heard)];
            const back = counted.findIndex((number, i) => i > 0 && number <= counted[i - 1]);
            const around = heard.slice(Math.max(0, back - 5), back + 5);
            assert.equal(back, -1, `${client.name} hears server ${n} in order: ${around}`);
          }
        }
        for (const client of clients) {
          const { sockets } = await client.do('fetchSockets', { target: {} });
          assert.equal(sockets.length, 4);
          const acks = await client.do('emitWithAck', { target: {}, event: 'ask', args: [], timeout: 30_000 });
          assert.equal(acks.length, 4);
        }
        for (const n of [0, 2]) assert.doesNotMatch(world.peers[n].log, /panicked/);
      });
    }
  });
}

describe('floods', () => {
  test('20,000 numbered broadcasts arrive in order, both ways at once', async () => {
    const world = await World.start(['rust', 'node']);
    try {
      const [rust, node] = [await world.client(0), await world.client(1)];
      const ears = [await world.client(0, { name: 'ear 0' }), await world.client(1, { name: 'ear 1' })];
      await world.counts([rust, node], 2);
      for (const ear of ears) await ear.do('enter', { rooms: ['ears'] });
      // In step, and at most two chunks ahead of what was heard: a server also takes
      // in what it published itself, and its inbox is bounded.
      const [all, chunk] = [20_000, 500];
      const flows = [[rust, ears[1]], [node, ears[0]]].map(([by, ear]) => ({ by, ear, event: `from ${by.name}` }));
      const heard = ({ ear, event }) => ear.received.filter(([name]) => name === event);
      const allHeard = (count) =>
        until(() => flows.every((flow) => heard(flow).length >= count), `both ears hear ${count}`);
      for (let from = 0; from < all; from += chunk) {
        await Promise.all(flows.map(({ by, event }) => by.do('stream', { room: 'ears', event, from, count: chunk })));
        await allHeard(from - chunk);
      }
      await allHeard(all);
      for (const flow of flows) {
        assert.deepEqual(heard(flow).map(([, number]) => number), Array.from({ length: all }, (_, n) => n));
      }
      const { counters } = await rust.do('log');
      assert.deepEqual([counters.lost, counters.unpublished, counters.malformed], [0, 0, 0]);
    } finally {
      await world.stop();
    }
  });

  test('more than a server can take is counted and told, and it goes on', async () => {
    const world = await World.start([['rust', { INBOX: '4' }], 'node']);
    try {
      const [rust, node] = [await world.client(0), await world.client(1)];
      await world.counts([rust, node], 2);
      let from = 0;
      await until(async () => {
        await node.do('stream', { event: 'flood', from, count: 2000 });
        from += 2000;
        return (await rust.do('log')).counters.lost > 0;
      }, 'messages are lost');
      await until(async () => {
        await node.do('emit', { target: {}, event: 'event', args: [] });
        return (await rust.do('log')).notices.some(({ lost, nsp }) => lost > 0 && nsp === '/');
      }, 'a notice');
      await until(async () => {
        const acks = await node.do('emitWithAck', { target: {}, event: 'ask', args: [], timeout: 2000 });
        return acks.length === 2;
      }, 'it answers again');
      const heard = rust.received.filter(([event]) => event === 'flood').map(([, number]) => number);
      assert.ok(heard.every((number, i) => i === 0 || number > heard[i - 1]), 'what came is in order');
    } finally {
      await world.stop();
    }
  });
});
