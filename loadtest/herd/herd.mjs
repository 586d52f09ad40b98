// A thundering herd: thousands of clients are connected, all are cut at once, and come back by themselves while others
// go on talking. Each has to have exactly what was said, once.

import { readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { JWT_SECRET, run, startServer } from '../../crates/server/e2e/support/server.mjs';
import { sleep, until } from '../../crates/server/e2e/support/wait.mjs';

// The end-to-end tests' packages serve here too: one place to install them.
const { io } = createRequire(new URL('../../crates/server/e2e/package.json', import.meta.url))('socket.io-client');

/** Members of a room, one of whom only speaks. */
const ROOM = 10;

/** One user at one address, with an unmodified client that is never told to come back. */
class Member {
  constructor({ userId, token, roomIds }, number, urls) {
    this.userId = userId;
    this.rooms = roomIds;
    /** How often each message came, live or from an offline batch. */
    this.times = new Map();
    this.bySync = 0;
    this.offline = 0;
    this.refused = 0;
    this.errors = [];
    this.seen = [];
    this.socket = io(urls[number % urls.length], {
      forceNew: true,
      transports: ['websocket'],
      auth: { token },
      // Its address, as a proxy tells it: the limit of an address is not what is measured.
      extraHeaders: { 'x-forwarded-for': `10.${number >> 16}.${(number >> 8) & 255}.${number & 255}` },
    });
    for (const event of ['connect', 'disconnect', 'session:ready', 'server:draining', 'sync:required']) {
      this.socket.on(event, (detail) => this.seen.push(`${Math.round(performance.now())} ${event} ${JSON.stringify(detail) ?? ''}`));
    }
    this.socket.on('session:ready', () => { this.readyAt = performance.now(); });
    this.socket.on('message:new', (message) => {
      this.#note(message);
      this.socket.emit('message:delivered', { roomId: message.roomId, messageIds: [message.id] });
    });
    this.socket.on('messages:offline', ({ messages }, acknowledge) => {
      this.offline += messages.length;
      messages.forEach((message) => this.#note(message));
      acknowledge();
    });
    this.socket.on('connect_error', ({ message }) => {
      if (message === 'unauthorized') this.errors.push(message);
      else this.refused += 1;
    });
    this.socket.on('error', (error) => this.errors.push(`${error.event}: ${error.code}`));
  }

  #note({ id }) {
    this.times.set(id, (this.times.get(id) ?? 0) + 1);
  }

  /** What it lacks and what it saw, for a run that fails. */
  describe(said) {
    const lacks = this.rooms.map((room) => `${room}: ${(said.get(room) ?? []).map((id) => this.times.get(id) ?? 0)}`);
    const { io: manager, connected } = this.socket;
    return `user ${this.userId} at ${manager.uri}, connected ${connected}, has by room [${lacks}]: ${this.seen.join(', ')}`;
  }

  /** As when the network goes: no word of goodbye. */
  cut() {
    this.readyAt = undefined;
    this.socket.io.engine.transport.ws.terminate();
  }
}

async function metrics(server) {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  const values = {};
  for (const line of text.split('\n')) {
    const [name, value] = line.split(' ');
    if (value !== undefined && !name.startsWith('#')) values[name] = Number(value);
  }
  return values;
}

/** Samples the pools until it is stopped: the most connections in use, and those that were allowed. */
function watchPools(servers, max) {
  const seen = { most: 0, max, samples: 0 };
  let stopped = false;
  const done = (async () => {
    while (!stopped) {
      for (const server of servers) {
        const values = await metrics(server).catch(() => ({}));
        if (values.starling_pool_connections !== undefined) {
          seen.most = Math.max(seen.most, values.starling_pool_connections - values.starling_pool_idle);
          seen.samples += 1;
        }
      }
      await sleep(200);
    }
  })();
  return async () => {
    stopped = true;
    await done;
    return seen;
  };
}

const spread = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))]);
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
};

/** Runs it; answers the figures. Throws when a client lacks something, has it twice, or was told an error. */
export async function runHerd({ clients = 5000, instances = 3, say = () => {}, env = {} } = {}) {
  const users = Math.ceil((clients * ROOM) / (ROOM - 1));
  const maximum = 50;
  const server = await startServer({
    instances,
    nodePeers: 0,
    withRedis: true,
    // What a server has when nobody sets anything.
    env: {
      DB_MAX_CONNECTIONS: String(maximum), CONNECT_RATE_PER_INSTANCE: '100', CONNECT_RATE_PER_IP: '20', MESSAGE_RATE_PER_USER: '10', ...env,
    },
  });
  const members = [];
  /** The ids of what was said in each room. */
  const said = new Map();
  const complete = (member) => member.rooms.every((room) => (said.get(room) ?? []).every((id) => member.times.has(id)));
  const tokens = join(tmpdir(), `starling-herd-${process.pid}.ndjson`);
  let stopWatching;
  try {
    const seeded = await run(
      ['seed', '--users', `${users}`, '--rooms', `${Math.ceil(users / ROOM)}`, '--members', `${ROOM}`, '--tokens-out', tokens, '--token-ttl', '3600'],
      { DATABASE_URL: server.databaseUrl, JWT_SECRET },
      120_000,
    );
    if (seeded.code !== 0) throw new Error(`starling seed: ${seeded.stderr}`);
    const people = (await readFile(tokens, 'utf8')).trim().split('\n').map((line) => JSON.parse(line));
    const speakers = new Map();
    const listeners = [];
    for (const person of people) {
      const silent = person.roomIds.find((room) => !speakers.has(room));
      if (silent === undefined) listeners.push(person);
      else speakers.set(silent, person);
    }
    listeners.length = Math.min(listeners.length, clients);
    say(`${listeners.length} clients and ${speakers.size} speakers over ${instances} instances`);

    const { urls } = server;
    const began = performance.now();
    [...speakers.values(), ...listeners].forEach((person, i) => members.push(new Member(person, i, urls)));
    const voices = members.slice(0, speakers.size);
    const herd = members.slice(speakers.size);
    await until(() => members.every(({ readyAt }) => readyAt), { ms: 300_000, every: 100, what: 'all to be connected' });
    const connected = Math.round(performance.now() - began);
    const refusedAtFirst = herd.reduce((sum, { refused }) => sum + refused, 0);
    say(`all connected after ${connected} ms, ${refusedAtFirst} handshakes were refused and came again`);

    speakers.forEach((_, room) => said.set(room, []));
    const speak = async (text) => {
      await Promise.all([...speakers.keys()].map(async (room, i) => {
        const answer = await voices[i].socket.timeout(60_000).emitWithAck('message:send', {
          roomId: room, content: `${text} ${room}`, clientId: crypto.randomUUID(),
        });
        if (!answer.ok) throw new Error(`a send was refused: ${JSON.stringify(answer.error)}`);
        said.get(room).push(answer.message.id);
      }));
    };
    await speak('before');
    await until(() => herd.every(complete), { ms: 60_000, every: 50, what: 'all to hear the first messages' });
    // What is not yet acknowledged as delivered would rightly come again.
    await until(async () => {
      const { rows } = await server.db.query('SELECT count(*)::int AS count FROM message_receipts WHERE delivered_at IS NULL');
      return rows[0].count <= voices.length * said.size;
    }, { ms: 60_000, every: 200, what: 'all to be marked as delivered' });

    const before = await Promise.all(server.all.map(metrics));
    stopWatching = watchPools(server.all, maximum);
    const cutAt = performance.now();
    herd.forEach((member) => member.cut());
    for (const text of ['first', 'second', 'third']) {
      await speak(text);
      await sleep(1000);
    }
    await until(() => herd.every(({ readyAt }) => readyAt), { ms: 300_000, every: 50, what: 'all to be back' });
    await until(() => herd.every(complete), { ms: 60_000, every: 50, what: 'all to have everything' });
    const whole = Math.round(performance.now() - cutAt);
    const pool = await stopWatching();
    stopWatching = undefined;
    // Whatever would come twice has had its time.
    await sleep(1000);

    const twice = herd.filter(({ times }) => [...times.values()].some((count) => count > 1)).length;
    const errors = members.flatMap((member) => member.errors);
    const after = await Promise.all(server.all.map(metrics));
    const grown = (name) => after.reduce((sum, values, i) => sum + (values[name] ?? 0) - (before[i][name] ?? 0), 0);
    const figures = {
      clients: herd.length,
      instances,
      connectedAfterMs: connected,
      backMs: spread(herd.map(({ readyAt }) => readyAt - cutAt)),
      completeAfterMs: whole,
      refused: herd.reduce((sum, { refused }) => sum + refused, 0) - refusedAtFirst,
      fromOfflineBatches: herd.reduce((sum, { offline }) => sum + offline, 0),
      expected: herd.reduce((sum, { rooms }) => sum + rooms.reduce((n, room) => n + (said.get(room)?.length ?? 0), 0), 0),
      arrivalsRepeated: grown('starling_arrivals_repeated_total'),
      databaseErrors: grown('starling_database_errors_total'),
      poolInUseAtMost: pool.most,
      poolMax: pool.max,
      poolSamples: pool.samples,
      twice,
      errors: errors.length,
    };
    if (twice > 0) throw new Error(`${twice} clients got something twice: ${JSON.stringify(figures)}`);
    if (errors.length > 0) throw new Error(`clients were told errors: ${errors.slice(0, 5)}`);
    if (figures.databaseErrors > 0) throw new Error(`the database failed: ${JSON.stringify(figures)}`);
    if (pool.most >= maximum) throw new Error(`a pool ran dry: ${JSON.stringify(figures)}`);
    return figures;
  } catch (error) {
    server.all.forEach(({ log }) => say(log.slice(-5000)));
    members.filter((member) => !complete(member)).slice(0, 5).forEach((member) => say(member.describe(said)));
    throw error;
  } finally {
    await stopWatching?.();
    members.forEach(({ socket }) => socket.disconnect());
    await server.stop();
    await rm(tokens, { force: true });
  }
}
