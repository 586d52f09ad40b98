// A running server on a database of its own. Everything is bounded in time and nothing is left behind.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { freePort } from './port.mjs';
import { startProxy } from './proxy.mjs';
import { until } from './wait.mjs';

export { freePort };
export const JWT_SECRET = 'an-end-to-end-secret-of-forty-characters';

const BINARY = process.env.STARLING_BIN
  ?? fileURLToPath(new URL('../../../../target/debug/starling', import.meta.url));

const BASE_ENV = {
  JWT_SECRET,
  CONNECT_RATE_PER_IP: '0',
  CONNECT_RATE_PER_INSTANCE: '0',
  AUTH_RATE_PER_IP: '0',
  DB_MAX_CONNECTIONS: '10',
  DB_MIN_CONNECTIONS: '5',
  BCRYPT_COST: '4',
  RUST_LOG: 'info',
};

const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));
// The test runner ends a file that takes too long by SIGTERM: leave no server behind then either.
process.on('SIGTERM', () => process.exit(143));

/** Runs the binary to its end: `{code, stdout, stderr}`. The environment holds nothing but what is given. */
export async function run(args, env = {}, ms = 20_000) {
  const child = spawnBinary(args, env);
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) {
    child[name].on('data', (chunk) => { output[name] += chunk; });
  }
  const timer = setTimeout(() => child.kill('SIGKILL'), ms);
  const [code, signal] = await once(child, 'close');
  clearTimeout(timer);
  if (signal) throw new Error(`starling ${args.join(' ')} ended by ${signal} after ${ms} ms\n${output.stderr}`);
  return { code, ...output };
}

/** So many instances serve each database, over a Redis of their own… */
export const INSTANCES = Number(process.env.STARLING_INSTANCES ?? 1);
/** Characters of each log that are kept. */
const LOG_KEPT = 2_000_000;

/** …and so many Node.js chat servers beside them, which hold a part of the connections. */
export const NODE_PEERS = Number(process.env.STARLING_NODE_PEERS ?? 0);

const NODE_PEER = fileURLToPath(new URL('../../../../loadtest/peer-node/server.mjs', import.meta.url));

/**
 * Creates a database, migrates it and serves it.
 * `env` is laid over the defaults above; `proxyDatabase` puts a proxy that tests can cut before PostgreSQL;
 * `instances` and `nodePeers` that are more than one in all get a Redis, one alone with `withRedis`;
 * `database` is one that is there already, which goes with the server.
 */
export async function startServer({
  env = {}, proxyDatabase = false, instances = INSTANCES, nodePeers = NODE_PEERS, adapter = process.env.STARLING_ADAPTER,
  database: given, withRedis = instances + nodePeers > 1,
} = {}) {
  const database = given ?? await createDatabase();
  let proxy;
  let redis;
  try {
    const migrated = await run(['migrate'], { ...BASE_ENV, DATABASE_URL: database.url });
    if (migrated.code !== 0) throw new Error(`starling migrate: exit code ${migrated.code}\n${migrated.stderr}`);
    if (proxyDatabase) proxy = await startProxy(database.url);
    if (withRedis) redis = await startRedis();
    const more = redis ? { REDIS_URL: redis.url, ADAPTER: adapter ?? '' } : {};
    const all = [];
    for (let i = 0; i < instances + nodePeers; i += 1) {
      const Kind = i < instances ? Server : NodePeer;
      all.push(new Kind(database, proxy, redis, await freePort(), { ...more, ...env }));
    }
    const [server, ...others] = all;
    server.others = others;
    await server.start();
    return server;
  } catch (error) {
    await proxy?.close();
    await redis?.stop();
    await database.drop();
    throw error;
  }
}

/** A Redis that nobody else uses. */
export async function startRedis(port) {
  port ??= await freePort();
  const args = ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--loglevel', 'warning'];
  const child = spawn('redis-server', args.map(String), { stdio: 'ignore', cwd: tmpdir() });
  children.add(child);
  const ended = once(child, 'close').finally(() => children.delete(child));
  await until(() => new Promise((resolve) => {
    const probe = net.connect(port, '127.0.0.1', () => { probe.end(); resolve(true); });
    probe.on('error', () => resolve(false));
  }), { ms: 10_000, what: 'Redis to listen' });
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    pid: child.pid,
    async stop(signal = 'SIGKILL') {
      child.kill(signal);
      await ended;
    },
  };
}

class Server {
  #database;
  #env;
  #child;
  #exit;

  constructor(database, proxy, redis, port, env) {
    this.#database = database;
    this.#env = {
      ...BASE_ENV,
      DATABASE_URL: proxy?.url ?? database.url,
      BIND_ADDR: `127.0.0.1:${port}`,
      ...env,
    };
    this.db = database.pool;
    this.databaseUrl = database.url;
    this.proxy = proxy;
    this.redis = redis;
    /** Instances that share the database and live and end with this one. */
    this.others = [];
    this.url = `http://127.0.0.1:${port}`;
    this.log = '';
    this.expectedExit = false;
  }

  get pid() {
    return this.#child.pid;
  }

  get all() {
    return [this, ...this.others];
  }

  /** Where clients can connect. */
  get urls() {
    return this.all.map(({ url }) => url);
  }

  /** Where there is REST, too. */
  get apiUrls() {
    return this.all.filter((server) => !(server instanceof NodePeer)).map(({ url }) => url);
  }

  get alive() {
    return this.all.every((server) => server.#child.exitCode === null && server.#child.signalCode === null);
  }

  async start() {
    await Promise.all(this.all.map((server) => server.#start()));
  }

  spawn(env) {
    return spawnBinary(['serve'], env);
  }

  async #start(ready = 200) {
    this.expectedExit = false;
    const child = this.spawn(this.#env);
    this.#child = child;
    this.#exit = once(child, 'close').then(([code, signal]) => ({ code, signal }));
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk) => { this.log = (this.log + chunk).slice(-LOG_KEPT); });
    }
    try {
      await until(async () => {
        if (this.#child.exitCode !== null) throw Object.assign(new Error('it ended at once'), { final: true });
        const answer = await fetch(`${this.url}/readyz`, { signal: AbortSignal.timeout(2_000) });
        return answer.status === ready;
      }, { ms: 20_000, what: `GET /readyz to answer ${ready}` });
    } catch (error) {
      await this.#kill('SIGKILL', 30_000);
      throw new Error(`starling serve did not become ready: ${error.message}\n${this.log}`);
    }
  }

  /** Sends a signal and waits for the end: `{code, signal}`. */
  async kill(signal = 'SIGTERM', ms = 30_000) {
    const [exit] = await Promise.all(this.all.map((server) => server.#kill(signal, ms)));
    return exit;
  }

  /** The same for this instance alone; `restartAlone` starts it again. */
  killAlone(signal = 'SIGKILL', ms = 30_000) {
    return this.#kill(signal, ms);
  }

  /** `ready` is what `/readyz` is to answer then. */
  async restartAlone(signal = 'SIGKILL', { ready } = {}) {
    await this.#kill(signal, 30_000);
    await this.#start(ready);
  }

  async #kill(signal, ms) {
    this.expectedExit = true;
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill(signal);
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), ms);
    const exit = await this.#exit;
    clearTimeout(timer);
    return exit;
  }

  /** Kills the server if it still runs, and starts it again on the same port and database. */
  async restart(signal = 'SIGKILL') {
    await this.kill(signal);
    await this.start();
  }

  async stop() {
    if (this.#child) await this.kill('SIGKILL');
    await this.proxy?.close();
    await this.redis?.stop();
    await this.#database.drop();
  }
}

/** A chat server in Node.js on the same database and Redis. */
class NodePeer extends Server {
  spawn(env) {
    return spawnChild(process.execPath, [NODE_PEER], env);
  }
}

export function spawnBinary(args, env) {
  if (!existsSync(BINARY)) throw new Error(`${BINARY} is not there: build it, or set STARLING_BIN`);
  return spawnChild(BINARY, args, env);
}

function spawnChild(command, args, env) {
  const child = spawn(command, args, {
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.add(child);
  child.once('close', () => children.delete(child));
  return child;
}

/** An empty database: `{url, pool, drop()}`. */
export async function createDatabase() {
  const admin = process.env.TEST_DATABASE_URL;
  if (!admin) {
    throw new Error('TEST_DATABASE_URL is not set: the URL of a PostgreSQL superuser, such as '
      + 'postgres://starling@127.0.0.1:5432/postgres');
  }
  const name = `starling_e2e_${process.pid}_${randomBytes(4).toString('hex')}`;
  await administer(admin, `CREATE DATABASE ${name}`);
  const url = new URL(admin);
  url.pathname = `/${name}`;
  const pool = databasePool(url.href);
  return {
    url: url.href,
    pool,
    async drop() {
      await pool.end();
      await administer(admin, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    },
  };
}

/** Connections to a database that may go away meanwhile. */
export function databasePool(connectionString) {
  const pool = new pg.Pool({ connectionString, max: 2 });
  pool.on('error', () => {});
  return pool;
}

async function administer(connectionString, statement) {
  const client = new pg.Client({ connectionString, connectionTimeoutMillis: 5_000, statement_timeout: 20_000 });
  try {
    await client.connect();
    await client.query(statement);
  } finally {
    await client.end().catch(() => {});
  }
}
