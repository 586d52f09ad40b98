// Redis and servers as child processes. Whatever is started here is stopped by
// `stopAll`, and with this process.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Redis } from 'ioredis';
import { freePort } from '../../../server/e2e/support/port.mjs';
import { until, within } from './wait.mjs';

const RUST = process.env.PEER_BIN ?? fileURLToPath(new URL('../../../../target/debug/examples/peer', import.meta.url));
const NODE = fileURLToPath(new URL('../node-peer.mjs', import.meta.url));

const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));
// What a runner out of patience sends.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

function start(command, args, env = {}) {
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  const started = { child, log: '', exited: once(child, 'close') };
  running.add(child);
  started.exited.then(() => running.delete(child));
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => { started.log = (started.log + chunk).slice(-100_000); });
  }
  return started;
}

/** Ends a process and waits for its end. */
async function end({ child, exited }, signal) {
  if (child.exitCode === null && child.signalCode === null) child.kill(signal);
  await exited;
}

/** A Redis of its own on a free port, which keeps nothing. */
export class RedisServer {
  static async start({ args = [], password } = {}) {
    const server = new RedisServer();
    server.port = await freePort();
    server.dir = mkdtempSync(join(tmpdir(), 'interop-redis-'));
    server.args = ['--port', server.port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', server.dir, ...args];
    server.url = `redis://${password ? `:${password}@` : ''}127.0.0.1:${server.port}`;
    if (password) server.args.push('--requirepass', password);
    await server.up();
    return server;
  }

  /** One that watches another, and makes its replica the main one a second after its death. */
  static async sentinel(name, port) {
    const server = new RedisServer();
    server.port = await freePort();
    server.dir = mkdtempSync(join(tmpdir(), 'interop-sentinel-'));
    const file = join(server.dir, 'sentinel.conf');
    writeFileSync(file, [
      `port ${server.port}`,
      'bind 127.0.0.1',
      `dir ${server.dir}`,
      `sentinel monitor ${name} 127.0.0.1 ${port} 1`,
      `sentinel down-after-milliseconds ${name} 1000`,
      `sentinel failover-timeout ${name} 5000`,
    ].join('\n'));
    server.args = [file, '--sentinel'];
    server.url = `redis://127.0.0.1:${server.port}`;
    server.isReady = /\+monitor/;
    await server.up();
    return server;
  }

  isReady = /Ready to accept connections/;

  /** Starts it, again on the same port. */
  async up() {
    this.process = start('redis-server', this.args.map(String));
    await until(() => {
      if (this.process.child.exitCode !== null) throw new Error(this.process.log);
      return this.isReady.test(this.process.log);
    }, 'redis-server starts');
  }

  async down(signal = 'SIGTERM') {
    await end(this.process, signal);
  }

  /** Runs one command. */
  async command(...words) {
    const client = new Redis(this.url);
    try {
      return await client.call(...words);
    } finally {
      client.disconnect();
    }
  }

  async stop() {
    await this.down('SIGKILL');
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** One server, `rust` or `node`, with a name and the settings of ../examples/peer.rs. */
export class Peer {
  static async start(kind, name, env) {
    const peer = new Peer();
    Object.assign(peer, { kind, name });
    peer.process = kind === 'rust' ? start(RUST, [], { NAME: name, ...env }) : start(process.execPath, [NODE], { NAME: name, ...env });
    peer.url = await until(() => {
      if (peer.process.child.exitCode !== null) throw new Error(peer.process.log);
      return /listening on (http:\S+)/.exec(peer.process.log)?.[1];
    }, `the ${kind} server ${name} starts`);
    return peer;
  }

  get log() { return this.process.log; }

  /** Stops it in its tracks: it stays subscribed, and says nothing. */
  async freeze() {
    const { pid } = this.process.child;
    process.kill(pid, 'SIGSTOP');
    await until(() => /\) T /.test(readFileSync(`/proc/${pid}/stat`, 'utf8')), `${this.name} stops`);
  }

  async kill() {
    await end(this.process, 'SIGKILL');
  }
}

/** Ends processes, even those that hang. */
export async function stopAll(things) {
  await within(Promise.all(things.map((thing) => (thing.kill ? thing.kill() : thing.stop()))), 'processes end');
}
