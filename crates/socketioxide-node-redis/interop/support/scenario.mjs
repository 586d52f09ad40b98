// All that one server of a cluster can do to the others, from each of them in turn.
// What comes of it is written down in a form that can be compared with what
// another cluster makes of the same.

import assert from 'node:assert/strict';
import { sorted, World } from './cluster.mjs';
import { until } from './wait.mjs';

const ROOMS = {
  r1: [0, 2, 4, 6],
  r2: [1, 2, 5],
  'zażółć 🦀': [0, 3, 7],
  'a#b': [1, 4],
  'a#b#': [2, 6],
  '#': [3],
  123: [0, 5],
  '*': [2, 7],
  'x?[y]\\z': [1, 6],
};

const BINARY = [Buffer.from([0, 1, 255]), { deep: [{ bytes: Buffer.from('zażółć') }, Buffer.alloc(0)] }, 'after'];
const VALUES = [
  [], [null], [true, false], [0, -1, 1.5, 1e-7, 2 ** 31, 2 ** 32, 2 ** 53 - 1, -(2 ** 53 - 1)],
  ['', 'zażółć 🦀 \u2028 "\\/\n\t\u0001', 'x'.repeat(100_000)],
  [[], {}, [[[]]], { a: { b: { c: [1, { d: null }] } } }], [{ 2: 'two', 1: 'one', z: 0, a: 0 }],
  [{ _placeholder: 'text', num: 'text' }],
];

/** Two clients on each of the four servers, in rooms. */
export async function enter(world) {
  const clients = [];
  for (let n = 0; n < 8; n += 1) clients.push(await world.client(Math.floor(n / 2), { silent: n === 5 }));
  for (const [room, members] of Object.entries(ROOMS)) {
    for (const n of members) await clients[n].do('enter', { rooms: [room] });
  }
  await world.counts(clients, 4);
  return clients;
}

/** Waits until a server knows so many sockets in a room. */
export async function inRoom(client, room, sockets) {
  await until(async () => {
    const found = await client.do('fetchSockets', { target: { to: [room] } });
    return found.sockets.length === sockets;
  }, `${client.name} sees ${sockets} sockets in ${room}`);
}

function described(world, { sockets, missing }) {
  return {
    missing,
    sockets: sorted(sockets.map(({ id, rooms, handshake, data }) => world.named({
      id,
      rooms: sorted(world.named(rooms)),
      data,
      auth: handshake.auth,
      query: { EIO: handshake.query.EIO, name: handshake.query.name, transport: handshake.query.transport },
      upgrade: handshake.headers.upgrade,
      url: handshake.url.startsWith('/socket.io/?EIO=4'),
      secure: handshake.secure,
      xdomain: handshake.xdomain,
      issued: typeof handshake.issued,
    }))),
  };
}

/**
 * Returns `[[title, what came of it], …]`. `allRooms` is what the sharded adapter
 * of Node.js lacks; `senders` are the servers that do it.
 */
export async function scenario(world, clients, { allRooms = true, senders = [0, 1, 2, 3] } = {}) {
  const records = [];
  const note = (title, record) => records.push([title, world.named(record)]);

  for (const server of senders) {
    const by = clients[server * 2];
    const from = (title) => `from server ${server}: ${title}`;
    const heard = async (title, op, fields) => {
      const { result, events } = await world.received(clients, by, op, fields);
      note(from(title), { result, events });
    };
    const emit = (title, target, args = ['x']) => heard(title, 'emit', { target, event: 'event', args });

    // Broadcasts.
    await emit('to all', {});
    await emit('to all but the sender', { others: true });
    // May be dropped, and may be overtaken: it counts that it can come.
    await until(async () => {
      await by.do('emit', { target: { volatile: true }, event: 'volatile', args: [] });
      return clients.every(({ received }) => received.some(([event]) => event === 'volatile'));
    }, 'all receive a volatile event');
    await emit('to those of this server', { local: true });
    for (const room of Object.keys(ROOMS)) await emit(`to the room ${room}`, { to: [room] });
    await emit('to a room, not to the sender', { others: true, to: ['r1'] });
    await emit('to two rooms', { to: ['r1', 'r2'] });
    await emit('to a room twice', { to: ['r1', 'r1'] });
    await emit('to all but a room', { except: ['r1'] });
    await emit('to a room but another', { to: ['r2'], except: ['r1'] });
    await emit('to two rooms but two', { to: ['r1', 'r2'], except: ['123', 'a#b'] });
    await emit('to a room where nobody is', { to: ['nobody'] });
    for (const to of [0, 2, 4, 6].map((n) => clients[n + 1])) {
      await emit(`to ${to.name} by its id`, { to: [to.id] });
      await emit(`to all but ${to.name} by its id`, { except: [to.id] });
    }
    await emit('binary to all', {}, BINARY);
    await emit('binary to a room', { to: ['r2'] }, BINARY);
    for (const [n, args] of VALUES.entries()) await emit(`values ${n}`, { to: ['r1'] }, args);
    const { events } = await world.received(clients, by, 'emitValues', { target: {}, event: 'values' });
    note(from('dates, undefined and numbers'), events);

    // Acknowledgements.
    const ask = async (title, target, event, args = [1], timeout = 30_000) => {
      const answers = await by.do('emitWithAck', { target, event, args, timeout });
      const others = await world.sinceThen(clients, by);
      note(from(title), { answers: sorted(world.named(answers)), events: others });
    };
    const heardBy = { except: [clients[5].id] };
    await ask('acknowledged by all', heardBy, 'ask', [1, 'two', { three: [3] }]);
    await ask('acknowledged by a room', { to: ['r1'] }, 'ask');
    await ask('acknowledged by a room but another', { to: ['r1'], except: ['123'] }, 'ask');
    await ask('acknowledged with binary', { to: ['r1'] }, 'askBinary', BINARY);
    await ask('acknowledged with nothing', { to: ['r1'] }, 'askNothing');
    await ask('acknowledged with a number', { to: ['r1'] }, 'askNumber');
    await ask('acknowledged by nobody', { to: ['nobody'] }, 'ask');
    await ask('acknowledged by one of another server', { to: [clients[(server * 2 + 3) % 8].silent ? clients[1].id : clients[7].id] }, 'ask');
    await ask('one is silent', {}, 'ask', [1], 1000);

    // Rooms of others.
    const room = `joined ${server}`;
    await by.do('join', { target: { to: ['r1'] }, rooms: [room, `${room} too`] });
    await inRoom(by, room, 4);
    await emit('to a room that sockets were made to enter', { to: [room] });
    await by.do('leave', { target: { to: ['r1'], except: ['123'] }, rooms: [room] });
    await inRoom(by, room, 1);
    await emit('to a room that sockets were made to leave', { to: [room] });
    await by.do('join', { target: { to: [clients[1].id, clients[7].id] }, rooms: [room] });
    await inRoom(by, room, 3);
    await emit('to a room that two were made to enter', { to: [room] });
    await by.do('join', { target: {}, rooms: ['everybody'] });
    await inRoom(by, 'everybody', 8);
    await by.do('leave', { target: {}, rooms: ['everybody', room, `${room} too`] });
    await inRoom(by, 'everybody', 0);
    await inRoom(by, room, 0);

    // What there is.
    for (const target of [{}, { to: ['r1'] }, { to: ['r1', 'r2'], except: ['123'] }, { to: [clients[1].id] }, { to: [clients[7].id] }]) {
      note(from(`sockets of ${JSON.stringify(world.named(target))}`), described(world, await by.do('fetchSockets', { target })));
    }
    if (allRooms) note(from('all rooms'), sorted(world.named((await by.do('allRooms')).map(String))));
    note(from('servers'), await by.do('serverCount'));

    // One by one.
    const each = (target, what) => by.do('each', { target, what });
    for (const to of [clients[1], clients[7]]) {
      const one = { to: [to.id] };
      await each(one, { what: 'emit', event: 'direct', args: ['x', BINARY[0]] });
      note(from(`to the socket of ${to.name}`), await world.sinceThen(clients, by));
      note(from(`acknowledged by the socket of ${to.name}`), [
        await each(one, { what: 'emitWithAck', event: 'ask', args: [2] }), await world.sinceThen(clients, by),
      ]);
      await each(one, { what: 'join', rooms: ['single'] });
      await inRoom(by, 'single', 1);
      note(from(`rooms of the socket of ${to.name}`), (await each(one, { what: 'rooms' })).map((rooms) => sorted(world.named(rooms))));
      await each(one, { what: 'leave', rooms: ['single'] });
      await inRoom(by, 'single', 0);
    }
    await each({ to: ['r1'] }, { what: 'emit', event: 'each', args: [] });
    note(from('to each socket of a room'), await world.sinceThen(clients, by));

    // Events for servers.
    const logs = async (event) => {
      const all = [];
      for (const n of [0, 2, 4, 6]) all.push((await clients[n].do('log')).events.filter((one) => one.event === event));
      return all;
    };
    const tell = async (args) => {
      const before = (await logs('tell')).flat().length;
      await by.do('serverSideEmit', { event: 'tell', args });
      await until(async () => (await logs('tell')).flat().length === before + 3, 'the others hear it');
    };
    await tell([]);
    await tell(['zażółć', 1.5, { deep: [null, true] }]);
    note(from('told to servers'), await logs('tell'));
    for (const event of ['ask', 'nothing']) {
      const { answers, missing, error } = await by.do('serverSideEmitWithAck', { event, args: [1, { two: 2 }] });
      note(from(`${event} servers`), { answers: sorted(answers), all: !missing && !error });
    }

    // Disconnected: by room, by id, with the transport.
    const guests = [];
    for (let n = 0; n < 4; n += 1) {
      const guest = await world.client(n, { name: `guest ${n}` });
      await guest.do('enter', { rooms: ['guests', 'parting'] });
      guests.push(guest);
    }
    await inRoom(by, 'guests', 4);
    const gone = async (title, some, target, close) => {
      const op = close === undefined ? ['each', { what: { what: 'disconnect' } }] : ['disconnect', { close }];
      await by.do(op[0], { target, ...op[1] });
      await until(() => some.every((guest) => guest.disconnected), `${title}: disconnected`);
      note(from(title), guests.map(({ disconnected }) => disconnected ?? 'stays'));
    };
    await gone('disconnected by id', [guests[1]], { to: [guests[1].id] }, false);
    await gone('disconnected one by one', [guests[2]], { to: [guests[2].id] });
    await gone('disconnected by room, but one', [guests[0]], { to: ['guests'], except: [guests[3].id] }, false);
    await gone('disconnected for good', [guests[3]], { to: ['guests'] }, true);
    world.clients.splice(-4);
  }
  return records;
}

/** Other namespaces, and that they are apart. */
export async function namespaces(world, { nsps = ['/admin', '/room-7'] } = {}) {
  const records = [];
  const main = await world.client(0, { name: 'main' });
  for (const nsp of nsps) {
    const servers = nsp === '/admin' ? [0, 1, 2, 3] : [0, 1, 2];
    const clients = [];
    for (const n of servers) clients.push(await world.client(n, { nsp, name: `${nsp} ${n}` }));
    await world.counts(clients, nsp === '/admin' ? 4 : 3);
    for (const client of clients) await client.do('enter', { rooms: ['r1', client.name] });
    for (const by of clients) {
      const note = (title, record) => records.push([`${nsp} from server ${by.server}: ${title}`, world.named(record)]);
      const { events } = await world.received(clients, by, 'emit', { target: {}, event: 'event', args: [Buffer.from('x'), nsp] });
      note('to all', events);
      note('to a room', (await world.received(clients, by, 'emit', { target: { to: [clients.at(-1).name] }, event: 'event', args: [] })).events);
      note('acknowledged', sorted(await by.do('emitWithAck', { target: { to: ['r1'] }, event: 'ask', args: [], timeout: 30_000 })));
      note('sockets', described(world, await by.do('fetchSockets', { target: {} })).sockets.map(({ id, rooms }) => [id, rooms]));
      await by.do('join', { target: { to: ['r1'] }, rooms: ['new'] });
      await inRoom(by, 'new', clients.length);
      await by.do('leave', { target: {}, rooms: ['new'] });
      await inRoom(by, 'new', 0);
      const { answers } = await by.do('serverSideEmitWithAck', { event: 'ask', args: [nsp] });
      note('asked servers', sorted(answers));
    }
    for (const client of clients) await world.sinceThen([client], client);
  }
  records.push(['nothing of it in the main namespace', await world.sinceThen([main], main)]);
  return records;
}

/** Compares two runs: a test for each operation, which looks at all servers. */
export async function compare(t, actual, expected) {
  assert.deepEqual(actual.map(([title]) => title), expected.map(([title]) => title));
  const operation = (title) => title.replace(/^(.*)from server \d: /, '$1');
  for (const name of new Set(expected.map(([title]) => operation(title)))) {
    await t.test(name, () => {
      for (const [n, [title, record]] of expected.entries()) {
        if (operation(title) === name) assert.deepEqual(actual[n][1], record, title);
      }
    });
  }
}

/** A whole cluster, from its start to its end. */
export async function run(kinds, { env = {}, senders } = {}) {
  const world = await World.start(kinds, { env });
  try {
    const clients = await enter(world);
    const records = await scenario(world, clients, { allRooms: env.PROTOCOL !== 'sharded', senders });
    return [...records, ...await namespaces(world)];
  } finally {
    await world.stop();
  }
}
