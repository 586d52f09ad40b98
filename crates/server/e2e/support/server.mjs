// A running server on a database of its own. Everything is bounded in time and nothing is left behind.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import net from 'node:net';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { startProxy } from './proxy.mjs';
import { until } from './wait.mjs';

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

/** A port that was free a moment ago. */
export async function freePort() {
  const probe = net.createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  return port;
}

/**
 * Creates a database, migrates it and serves it.
 * `env` is laid over the defaults above; `proxyDatabase` puts a proxy that tests can cut before PostgreSQL;
 * `database` is one that is there already, which goes with the server.
 */
export async function startServer({ env = {}, proxyDatabase = false, database: given } = {}) {
  const database = given ?? await createDatabase();
  let proxy;
  try {
    const migrated = await run(['migrate'], { ...BASE_ENV, DATABASE_URL: database.url });
    if (migrated.code !== 0) throw new Error(`starling migrate: exit code ${migrated.code}\n${migrated.stderr}`);
    if (proxyDatabase) proxy = await startProxy(database.url);
    const server = new Server(database, proxy, await freePort(), env);
    await server.start();
    return server;
  } catch (error) {
    await proxy?.close();
    await database.drop();
    throw error;
  }
}

class Server {
  #database;
  #env;
  #child;
  #exit;

  constructor(database, proxy, port, env) {
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
    this.url = `http://127.0.0.1:${port}`;
    this.log = '';
    this.expectedExit = false;
  }

  get pid() {
    return this.#child.pid;
  }

  get alive() {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async start() {
    this.expectedExit = false;
    const child = spawnBinary(['serve'], this.#env);
    this.#child = child;
    this.#exit = once(child, 'close').then(([code, signal]) => ({ code, signal }));
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk) => { this.log = (this.log + chunk).slice(-200_000); });
    }
    try {
      await until(async () => {
        if (!this.alive) throw Object.assign(new Error('it ended at once'), { final: true });
        const answer = await fetch(`${this.url}/readyz`, { signal: AbortSignal.timeout(2_000) });
        return answer.status === 200;
      }, { ms: 20_000, what: 'GET /readyz to answer 200' });
    } catch (error) {
      await this.kill('SIGKILL');
      throw new Error(`starling serve did not become ready: ${error.message}\n${this.log}`);
    }
  }

  /** Sends a signal and waits for the end: `{code, signal}`. */
  async kill(signal = 'SIGTERM', ms = 30_000) {
    this.expectedExit = true;
    if (this.alive) this.#child.kill(signal);
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
    await this.#database.drop();
  }
}

export function spawnBinary(args, env) {
  if (!existsSync(BINARY)) throw new Error(`${BINARY} is not there: build it, or set STARLING_BIN`);
  const child = spawn(BINARY, args, {
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
  const pool = new pg.Pool({ connectionString: url.href, max: 2 });
  pool.on('error', () => {});
  return {
    url: url.href,
    pool,
    async drop() {
      await pool.end();
      await administer(admin, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    },
  };
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
