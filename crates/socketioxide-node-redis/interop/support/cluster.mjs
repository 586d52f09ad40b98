// Several servers on one Redis, and clients on each.

import msgpackParser from 'socket.io-msgpack-parser';
import { Client } from './client.mjs';
import { Peer, RedisServer, stopAll } from './processes.mjs';
import { until } from './wait.mjs';

export class World {
  /**
   * `kinds` are the servers: `rust`, `node` (with the library `redis`), `ioredis`,
   * or `[kind, env]`. `env` is for all of them.
   */
  static async start(kinds, { env = {}, redis } = {}) {
    const world = new World();
    world.ownRedis = redis === undefined;
    world.redis = redis ?? await RedisServer.start();
    world.clients = [];
    world.markers = 0;
    world.peers = await Promise.all(kinds.map((one, n) => {
      const [kind, own] = [one].flat();
      const lib = kind === 'ioredis' ? { REDIS_LIB: 'ioredis' } : {};
      const all = { REDIS_URL: world.redis.url, REQUESTS_TIMEOUT: '5000', ...lib, ...env, ...own };
      const peer = Peer.start(kind === 'rust' ? 'rust' : 'node', `s${n}`, all);
      return peer.then((started) => Object.assign(started, { env: all }));
    }));
    return world;
  }

  /** A client on a server. */
  async client(server, options = {}) {
    const { name = `c${this.clients.length}`, ...rest } = options;
    const peer = this.peers[server];
    const parser = peer.env.PARSER === 'msgpack' ? { parser: msgpackParser } : {};
    const client = await Client.connect(peer, name, { ...parser, ...rest });
    client.server = server;
    this.clients.push(client);
    return client;
  }

  /** Waits until each of these clients' servers counts so many servers. */
  async counts(clients, servers) {
    for (const client of clients) {
      await until(async () => await client.do('serverCount') === servers, `${client.name} counts ${servers} servers`);
    }
  }

  /**
   * Has a client's server do something, and returns what all these clients received
   * by it: `{client: [[event, ...args], …]}`. A marker that follows tells that all
   * has come, for what one server says comes in its order.
   */
  async received(clients, by, op, fields) {
    const result = await by.do(op, fields);
    const events = await this.sinceThen(clients, by);
    return { result, events };
  }

  async sinceThen(clients, by) {
    this.markers += 1;
    const marker = `marker ${this.markers}`;
    await by.do('emit', { target: {}, event: marker, args: [] });
    const events = {};
    for (const client of clients) {
      const all = (await client.upTo(marker)).filter(([event]) => event !== 'volatile');
      if (all.length) events[client.name] = all;
    }
    return events;
  }

  /** Socket ids become names of clients, wherever they are. */
  named(value) {
    const ids = new Map(this.clients.map(({ id, name }) => [id, `<${name}>`]));
    const walk = (one) => {
      if (typeof one === 'string') return ids.get(one) ?? one;
      if (Buffer.isBuffer(one) || one instanceof Uint8Array) return { bytes: Buffer.from(one).toString('hex') };
      if (one instanceof Date) return { date: one.toJSON() };
      if (Array.isArray(one)) return one.map(walk);
      if (one && typeof one === 'object') {
        return Object.fromEntries(Object.entries(one).map(([key, inner]) => [key, walk(inner)]));
      }
      return one;
    };
    return walk(value);
  }

  async stop() {
    this.clients.forEach((client) => client.close());
    await stopAll(this.ownRedis ? [...this.peers, this.redis] : this.peers);
  }
}

/** In an order of its own, for answers that come in any. */
export const sorted = (list) => [...list].sort((a, b) => JSON.stringify(a).localeCompare(JSON.stringify(b)));
