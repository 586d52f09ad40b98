// The same server as ../examples/peer.rs, as one writes it in Node.js.
// Beyond its settings: REDIS_LIB=redis|ioredis, MODE=subscriptionMode of the
// sharded adapter, ADAPTER=7 for version 7.1 of the adapter, CLUSTER=1.

import { createServer } from 'node:http';
import { createAdapter, createShardedAdapter } from '@socket.io/redis-adapter';
import { createAdapter as createAdapter7 } from '@socket.io/redis-adapter-7';
import { Cluster, Redis } from 'ioredis';
import { createClient, createCluster } from 'redis';
import { Server } from 'socket.io';
import msgpackParser from 'socket.io-msgpack-parser';

const {
  REDIS_URL, BIND = '127.0.0.1:0', NAME = 'node', KEY = 'socket.io', PROTOCOL = 'classic', SPECIFIC, PARSER,
  REQUESTS_TIMEOUT = '5000', REDIS_LIB = 'redis', MODE = 'static', ADAPTER = '8', CLUSTER,
} = process.env;

async function connection() {
  if (REDIS_LIB === 'ioredis') {
    const client = CLUSTER ? new Cluster([REDIS_URL], { shardedSubscribers: true }) : new Redis(REDIS_URL, { maxRetriesPerRequest: null });
    client.on('error', () => {});
    return client;
  }
  const client = CLUSTER
    ? createCluster({ rootNodes: [{ url: REDIS_URL }] })
    : createClient({ url: REDIS_URL, socket: { reconnectStrategy: 50 } });
  client.on('error', () => {});
  await client.connect();
  return client;
}

// The adapter leaves failed publications to whoever catches them.
process.on('unhandledRejection', (error) => console.error('unhandled:', error.message));

const pub = await connection();
const sub = await connection();
const requestsTimeout = Number(REQUESTS_TIMEOUT);
const adapters = {
  classic: () => (ADAPTER === '7' ? createAdapter7 : createAdapter)(pub, sub, {
    key: KEY, requestsTimeout, publishOnSpecificResponseChannel: SPECIFIC === '1',
  }),
  sharded: () => createShardedAdapter(pub, sub, { channelPrefix: KEY, subscriptionMode: MODE }),
};

const http = createServer();
const io = new Server(http, {
  adapter: adapters[PROTOCOL](),
  ...(PARSER === 'msgpack' && { parser: msgpackParser }),
});

const log = { events: [], notices: [], counters: {} };

/** Operators for a target: `{others, to, except, volatile, local}`. */
function operators(socket, { others, to = [], except = [], volatile, local }) {
  let chain = others ? socket.broadcast : socket.nsp.except([]);
  if (to.length) chain = chain.to(to);
  if (except.length) chain = chain.except(except);
  if (local) chain = chain.local;
  if (volatile) chain = chain.volatile;
  return chain;
}

const acks = (chain, event, args) => new Promise((resolve) => {
  const said = (value) => (value === undefined ? 'nothing' : value);
  chain.emit(event, ...args, (_, answers) => resolve([answers].flat().map(said)));
});

async function each(remote, { what, event, args, rooms }) {
  switch (what) {
    case 'emit': remote.emit(event, ...args); return null;
    case 'emitWithAck': return [await remote.timeout(5000).emitWithAck(event, ...args)];
    case 'join': remote.join(rooms); return null;
    case 'leave': for (const room of rooms) remote.leave(room); return null;
    case 'rooms': return [...remote.rooms];
    case 'disconnect': remote.disconnect(); return null;
    default: throw new Error(`unknown: ${what}`);
  }
}

async function perform(socket, command) {
  const { target = {}, event, args = [], rooms, timeout } = command;
  const chain = operators(socket, target);
  const { adapter } = socket.nsp;
  switch (command.op) {
    case 'enter': await socket.join(rooms); return null;
    case 'exit': for (const room of rooms) await socket.leave(room); return null;
    case 'emit': chain.emit(event, ...args); return null;
    case 'emitWithAck': return acks(chain.timeout(timeout), event, args);
    case 'join': chain.socketsJoin(rooms); return null;
    case 'leave': chain.socketsLeave(rooms); return null;
    case 'disconnect': chain.disconnectSockets(command.close); return null;
    case 'fetchSockets': {
      const sockets = (await chain.fetchSockets()).map(({ id, handshake, data, rooms: its }) => ({
        id, handshake, data, rooms: [...its],
      }));
      return { sockets, missing: 0 };
    }
    case 'each': return Promise.all((await chain.fetchSockets()).map((remote) => each(remote, command.what)));
    case 'allRooms': return [...await adapter.allRooms()];
    case 'allSockets': return [...await chain.allSockets()];
    case 'serverCount': return adapter.serverCount();
    case 'serverSideEmit': socket.nsp.serverSideEmit(event, ...args); return null;
    case 'serverSideEmitWithAck': return new Promise((resolve) => {
      socket.nsp.serverSideEmit(event, ...args, (error, answers) => {
        resolve({ answers: answers.map((answer) => answer ?? null), error: error?.message });
      });
    });
    case 'log': return log;
    case 'emitValues':
      chain.emit(event, new Date(1_700_000_000_123), [undefined, null], { gone: undefined, kept: 1 },
        1.0, 2.5, 1e-7, -5_000_000_000, 9_007_199_254_740_991, NaN);
      return null;
    // What JavaScript alone can send, some of it mangled by its encoder.
    case 'emitOddValues':
      chain.emit(event, 1e20, 2 ** 53 + 2, -(2 ** 60), 1e300, Infinity, new Date(-1), new Date(NaN), new Map([[1, 2]]),
        { 2: 'b', 1: 'a', z: 1, toJSON: undefined }, new Uint8Array([1, 2]), '\u2028\u0000"\\', [new Date(1e12)]);
      return null;
    case 'emitNumberRooms': socket.nsp.to(123).emit(event); socket.nsp.to([123, 'nobody']).emit(event); return null;
    case 'stream':
      for (let n = command.from; n < command.from + command.count; n += 1) {
        (command.room ? socket.nsp.to(command.room) : socket.nsp).emit(event, n);
        // Lets the connections keep up.
        if (n % 256 === 0) await new Promise(setImmediate);
      }
      return null;
    default: throw new Error(`unknown: ${command.op}`);
  }
}

function listen(nsp) {
  for (const event of ['tell', 'ask', 'silent', 'nothing']) {
    nsp.on(event, (...args) => {
      const answer = typeof args.at(-1) === 'function' ? args.pop() : undefined;
      log.events.push({ nsp: nsp.name, event, args, answer: answer !== undefined });
      if (event === 'silent') return;
      if (event === 'nothing') answer?.();
      else answer?.({ from: NAME, args });
    });
  }
}

function connected(socket) {
  socket.data = { server: NAME, numbers: [1, 2.5], text: 'zażółć' };
  socket.on('do', (command, ack) => {
    perform(socket, command).then((result) => ack({ result }), (error) => ack({ error: error.message }));
  });
}

for (const nsp of [io.of('/'), io.of('/admin')]) {
  listen(nsp);
  nsp.on('connection', connected);
}
io.on('new_namespace', listen);
io.of(/^\/room-\w+$/).on('connection', connected);

const [host, port] = BIND.split(':');
http.listen(Number(port), host, () => console.log(`listening on http://${host}:${http.address().port}`));
