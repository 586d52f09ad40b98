// A private PostgreSQL on a loopback port, which can be stopped, killed and started again on the same data.

import { execFileSync } from 'node:child_process';
import { chownSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { until } from '../../crates/server/e2e/support/wait.mjs';
import { AS_ROOT, Process, postgresProgram, run } from './tools.mjs';

/** As in deploy/docker/compose.yaml: four instances of 50 connections, and some for people and backups. */
export const SETTINGS = { max_connections: '300', shared_buffers: '256MB', wal_compression: 'on' };

/** initdb and postgres refuse to be root: an ordinary user runs them then. */
function owner() {
  if (!AS_ROOT) return {};
  const id = (flag, user) => Number(execFileSync('id', [flag, user], { stdio: ['ignore', 'pipe', 'ignore'] }));
  try {
    return { uid: id('-u', 'postgres'), gid: id('-g', 'postgres') };
  } catch {
    return { uid: id('-u', 'nobody'), gid: id('-g', 'nobody') };
  }
}

export class Postgres {
  /** Makes the data folder in `folder`, which others must be able to enter, and starts. */
  static async create({ folder, port, log, settings = {}, name = 'postgres' }) {
    const postgres = new Postgres({ folder: path.join(folder, name), port, log, settings, name });
    mkdirSync(postgres.folder);
    const { uid, gid } = owner();
    if (uid !== undefined) chownSync(postgres.folder, uid, gid);
    await run(postgresProgram('initdb'), [
      '-D', postgres.data, '-U', 'starling', '--auth', 'trust', '--encoding', 'UTF8', '--locale', 'C.UTF-8', '--no-sync',
    ], { uid, gid });
    await postgres.start();
    await run(postgresProgram('createdb'), ['-h', '127.0.0.1', '-p', port, '-U', 'starling', 'starling']);
    return postgres;
  }

  /** On a data folder that is there already. */
  constructor({ folder, port, log, settings = {}, name = 'postgres' }) {
    this.folder = folder;
    this.data = path.join(folder, 'data');
    this.port = port;
    this.url = `postgres://starling@127.0.0.1:${port}/starling`;
    const all = { listen_addresses: '127.0.0.1', unix_socket_directories: this.folder, ...SETTINGS, ...settings };
    // SIGINT ends sessions and the server; SIGTERM would wait for clients to go.
    this.process = new Process(name, postgresProgram('postgres'), [
      '-D', this.data, '-p', String(port), ...Object.entries(all).flatMap(([key, value]) => ['-c', `${key}=${value}`]),
    ], { log, stopSignal: 'SIGINT', ...owner() });
    this.owner = owner();
  }

  async start() {
    this.process.start();
    await until(() => {
      if (!this.process.alive) throw Object.assign(new Error(`PostgreSQL ended at once: ${this.process.log}`), { final: true });
      return run(postgresProgram('pg_isready'), ['-q', '-h', '127.0.0.1', '-p', this.port], { ms: 5_000 }).then(() => true);
    }, { ms: 60_000, every: 100, what: 'PostgreSQL to listen' });
  }

  stop(signal) {
    return this.process.stop(signal);
  }

  async restart(signal) {
    await this.stop(signal);
    await this.start();
  }

  /** Rows of a query, each a line of fields separated by `|`. */
  async query(sql, database = 'starling') {
    const { stdout } = await run(postgresProgram('psql'), [
      '-h', '127.0.0.1', '-p', this.port, '-U', 'starling', '-d', database, '-X', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-c', sql,
    ]);
    return stdout.split('\n').filter(Boolean);
  }
}
