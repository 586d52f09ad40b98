// Three instances on one PostgreSQL and one Redis, each behind proxies of its own.

import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { createDatabase, freePort, run, sleep, spawnBinary, startRedis, until } from './deps.mjs';
import { now } from './history.mjs';
import { startPostgres } from './postgres.mjs';
import { startProxy } from './proxy.mjs';

const NAMES = ['a', 'b', 'c'];
/** A process that is told to end gets so long; the server's own bound is shorter. */
const DRAIN_SECONDS = 15;

const BASE_ENV = {
  JWT_SECRET: 'a-secret-of-the-fault-suite-of-forty-chars',
  CONNECT_RATE_PER_IP: '0',
  CONNECT_RATE_PER_INSTANCE: '0',
  AUTH_RATE_PER_IP: '0',
  // What waited for a fault to end is sent again in a burst.
  MESSAGE_RATE_PER_USER: '30',
  ACCESS_TOKEN_TTL_SECONDS: '14400',
  DB_MAX_CONNECTIONS: '10',
  DB_MIN_CONNECTIONS: '3',
  BCRYPT_COST: '4',
  // Clients of a stopped instance find that out within 18 s.
  PING_INTERVAL_MS: '10000',
  PING_TIMEOUT_MS: '8000',
  DRAIN_TIMEOUT_SECONDS: String(DRAIN_SECONDS),
  RUST_LOG: 'info',
};

export async function startCluster(history, { env = {} } = {}) {
  const cluster = new Cluster(history, env);
  try {
    await cluster.start();
  } catch (error) {
    await cluster.end();
    throw error;
  }
  return cluster;
}

class Cluster {
  constructor(history, env) {
    this.history = history;
    this.env = { ...BASE_ENV, ...env };
    this.instances = [];
  }

  async start() {
    this.postgres = await startPostgres();
    process.env.TEST_DATABASE_URL = this.postgres.url;
    this.database = await createDatabase();
    const migrated = await run(['migrate'], { ...this.env, DATABASE_URL: this.database.url });
    if (migrated.code !== 0) throw new Error(`starling migrate: exit code ${migrated.code}\n${migrated.stderr}`);
    this.redis = await startRedis();
    for (const name of NAMES) {
      const proxies = {
        postgres: await startProxy(this.postgres.port),
        redis: await startProxy(this.redis.port, { follows: true }),
      };
      this.instances.push(new Instance(this, name, proxies, await freePort()));
    }
    await Promise.all(this.instances.map((instance) => instance.start()));
    await this.recovered();
  }

  get urls() {
    return this.instances.map(({ url }) => url);
  }

  get alive() {
    return this.instances.filter((instance) => instance.running);
  }

  get pool() {
    return this.database.pool;
  }

  /** Every instance that runs is ready again. */
  async recovered(ms = 40_000) {
    await Promise.all(this.alive.map((instance) => instance.ready(ms)));
  }

  async stopRedis(signal) {
    await this.redis.stop(signal);
  }

  async startRedis() {
    this.redis = await startRedis(this.redis.port);
  }

  /** One command without blanks in its words; answers the first line. */
  async redisCommand(...words) {
    const socket = net.connect(this.redis.port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write(`${words.join(' ')}\r\n`);
    const [answer] = await once(socket, 'data', { signal: AbortSignal.timeout(2_000) });
    socket.destroy();
    return answer.toString().split('\r\n')[0];
  }

  async end() {
    for (const instance of this.instances) {
      instance.signal('SIGCONT');
      if (instance.running) await instance.end('SIGKILL');
      await Promise.all(Object.values(instance.proxies).map((proxy) => proxy.close()));
    }
    await this.redis?.stop();
    await this.database?.pool.end().catch(() => {});
    this.postgres?.end();
  }
}

class Instance {
  #cluster;
  #child;
  #exit;
  #starts = 0;

  constructor(cluster, name, proxies, port) {
    this.#cluster = cluster;
    this.name = name;
    this.proxies = proxies;
    this.port = port;
    this.url = `http://127.0.0.1:${port}`;
    /** What the counters of all its processes told, as far as they were read. */
    this.counters = new Map();
  }

  get running() {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async start() {
    this.#starts += 1;
    // Another name for each process, as a restarted container has.
    this.id = `${this.name}-${this.#starts}`;
    const database = new URL(this.#cluster.database.url);
    database.port = this.proxies.postgres.port;
    this.#child = spawnBinary(['serve'], {
      ...this.#cluster.env,
      INSTANCE_ID: this.id,
      BIND_ADDR: `127.0.0.1:${this.port}`,
      DATABASE_URL: database.href,
      REDIS_URL: `redis://127.0.0.1:${this.proxies.redis.port}`,
    });
    this.#exit = once(this.#child, 'close').then(([code, signal]) => ({ code, signal }));
    const { id, history } = { id: this.id, history: this.#cluster.history };
    const log = history.folder && createWriteStream(path.join(history.folder, `${id}.log`));
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      if (log) stream.pipe(log, { end: false });
      else stream.resume();
    }
    history.write('instance', { id, name: this.name, state: 'started' });
    this.#exit.then(({ code, signal }) => history.write('instance', { id, name: this.name, state: 'ended', code, signal }));
  }

  async ready(ms = 30_000) {
    await until(async () => {
      if (!this.running) throw Object.assign(new Error(`${this.id} ended`), { final: true });
      const answer = await fetch(`${this.url}/readyz`, { signal: AbortSignal.timeout(2_000), headers: { connection: 'close' } });
      await answer.text();
      return answer.status === 200;
    }, { ms, every: 100, what: `${this.id} to be ready` });
  }

  signal(signal) {
    if (this.running) this.#child.kill(signal);
  }

  /** Sends the signal and waits for the end: `{code, signal, ms}`. */
  async end(signal) {
    const since = now();
    this.#child.kill(signal);
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), (DRAIN_SECONDS + 15) * 1_000);
    const exit = await this.#exit;
    clearTimeout(timer);
    return { ...exit, ms: Math.round(now() - since) };
  }

  /** Reads the counters; a process that can't answer now is read the next time. */
  async readCounters() {
    if (!this.running) return;
    const { id } = this;
    try {
      const answer = await fetch(`${this.url}/metrics`, { signal: AbortSignal.timeout(1_000), headers: { connection: 'close' } });
      for (const line of (await answer.text()).split('\n')) {
        const [, name, value] = /^(starling_\w+_total)(?:\{.*\})? (\d+)/.exec(line) ?? [];
        if (name && !line.includes('{')) this.counters.set(`${id} ${name}`, Number(value));
      }
    } catch { /* read the next time */ }
  }

  counter(name) {
    return [...this.counters].filter(([key]) => key.endsWith(` ${name}`)).reduce((sum, [, value]) => sum + value, 0);
  }
}

/** Reads all counters again and again until the signal says so. */
export async function watchCounters(cluster, signal) {
  while (!signal.aborted) {
    await Promise.all(cluster.instances.map((instance) => instance.readCounters()));
    await sleep(2_000);
  }
}
