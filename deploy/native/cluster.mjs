// A whole cluster on this machine: PostgreSQL, Redis, N instances, NGINX, all on loopback and all private.

import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { until } from '../../crates/server/e2e/support/wait.mjs';
import { Nginx } from './nginx.mjs';
import { Postgres } from './postgres.mjs';
import { Redis } from './redis.mjs';
import { Process, ROOT, STARLING, freePort, run } from './tools.mjs';

/** Everybody here has one address, so what counts by address is off. */
const ONE_ADDRESS = { CONNECT_RATE_PER_IP: '0', AUTH_RATE_PER_IP: '0' };
const ONE_ADDRESS_NGINX = {
  STARLING_HANDSHAKES_PER_IP: '10000',
  STARLING_HANDSHAKE_BURST: '10000',
  STARLING_REQUESTS_PER_IP: '10000',
  STARLING_REQUEST_BURST: '10000',
  STARLING_CONNECTIONS_PER_IP: '60000',
};

/** One `starling serve`. */
export class Instance {
  /** `told` hears of each process that starts or ends: `{id, name, state, code, signal}`. */
  constructor({ name, port, env, log, told = () => {} }) {
    Object.assign(this, { name, port, told });
    this.url = `http://127.0.0.1:${port}`;
    this.process = new Process(name, STARLING, ['serve'], {
      log, env: { ...env, BIND_ADDR: `127.0.0.1:${port}`, INSTANCE_ID: name },
    });
  }

  async start() {
    this.process.start();
    // The same for all processes of the instance, as a unit or a StatefulSet has it.
    const who = { id: this.name, name: this.name };
    this.told({ ...who, state: 'started' });
    this.process.ended.then((exit) => this.told({ ...who, state: 'ended', ...exit }));
    await this.ready();
  }

  async ready(ms = 30_000) {
    await until(async () => {
      if (!this.process.alive) throw Object.assign(new Error(`${this.name} ended: ${this.process.log}`), { final: true });
      return (await fetch(`${this.url}/readyz`, { signal: AbortSignal.timeout(2_000) })).status === 200;
    }, { ms, every: 50, what: `${this.name} to be ready` });
  }

  stop(signal = 'SIGTERM') {
    return this.process.stop(signal);
  }

  async metrics() {
    return (await fetch(`${this.url}/metrics`, { signal: AbortSignal.timeout(5_000) })).text();
  }
}

export class Cluster {
  /**
   * `instances` so many; `port` of NGINX (a free one without it); `env` is laid over the instances' environment,
   * `nginx` over the values of the template; `logs` is a folder; `told` is each instance's.
   */
  static async start({ instances = 4, port, tlsPort, env = {}, nginx = {}, logs, settings, told, say = () => {} } = {}) {
    if (!existsSync(STARLING)) throw new Error(`${STARLING} is not there: build it, or set STARLING_BIN`);
    const folder = mkdtempSync(path.join(tmpdir(), 'starling-cluster-'));
    // PostgreSQL's user has to get in.
    chmodSync(folder, 0o755);
    process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
    let cluster;
    try {
      cluster = new Cluster(folder, logs ?? path.join(folder, 'logs'));
      await cluster.#start({ instances, port, tlsPort, env, nginx, settings, told, say });
      return cluster;
    } catch (error) {
      await cluster?.stop();
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  constructor(folder, logs) {
    this.folder = folder;
    this.logs = logs;
    this.instances = [];
    mkdirSync(logs, { recursive: true });
  }

  log(name) {
    return path.join(this.logs, `${name}.log`);
  }

  async #start({ instances, port, tlsPort, env, nginx, settings, told, say }) {
    const secret = path.join(this.folder, 'jwt-secret');
    writeFileSync(secret, randomBytes(32).toString('hex'), { mode: 0o600 });
    say('PostgreSQL');
    this.postgres = await Postgres.create({
      folder: this.folder, port: await freePort(), log: this.log('postgres'), settings,
    });
    say('Redis');
    this.redis = new Redis({ port: await freePort(), log: this.log('redis'), folder: this.folder });
    await this.redis.start();
    this.env = {
      DATABASE_URL: this.postgres.url, REDIS_URL: this.redis.url, JWT_SECRET_FILE: secret, ...ONE_ADDRESS, ...env,
    };
    await run(STARLING, ['migrate'], { env: this.env });
    for (let i = 1; i <= instances; i += 1) {
      const name = `starling-${i}`;
      this.instances.push(new Instance({ name, port: await freePort(), env: this.env, log: this.log(name), told }));
    }
    say(`${instances} instances`);
    await Promise.all(this.instances.map((instance) => instance.start()));
    say('NGINX');
    this.nginx = new Nginx({
      folder: path.join(this.folder, 'nginx'),
      port: port ?? await freePort(),
      tlsPort: tlsPort ?? await freePort(),
      servers: this.instances.map((instance) => instance.port),
      log: this.log('nginx'),
      accessLog: this.log('nginx-access'),
      values: { ...ONE_ADDRESS_NGINX, ...nginx },
    });
    await this.nginx.start();
    this.url = this.nginx.url;
  }

  /** Users, rooms and tokens: `[{userId, username, token, roomIds}]`. */
  async seed({ users, rooms, members, ttl = 86_400, file = path.join(this.folder, 'tokens.jsonl') }) {
    await run(STARLING, [
      'seed', '--users', users, '--rooms', rooms, '--members', members, '--token-ttl', ttl, '--tokens-out', file,
    ], { env: this.env, ms: 300_000 });
    return file;
  }

  get alive() {
    return this.instances.filter((instance) => instance.process.alive);
  }

  /** Every instance that runs is ready. */
  async recovered(ms) {
    await Promise.all(this.alive.map((instance) => instance.ready(ms)));
  }

  get processes() {
    return [this.nginx, ...this.instances, this.redis, this.postgres].filter(Boolean).map((part) => part.process);
  }

  async stop() {
    await this.nginx?.stop();
    await Promise.all(this.instances.map((instance) => instance.stop()));
    await this.redis?.stop();
    await this.postgres?.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export const LOGS = path.join(ROOT, '.starling/cluster');
