// A private Redis on a loopback port, with the limits of deploy/redis/redis.conf.

import net from 'node:net';
import path from 'node:path';
import { until } from '../../crates/server/e2e/support/wait.mjs';
import { Process, ROOT, program } from './tools.mjs';

export class Redis {
  constructor({ port, log, folder }) {
    this.port = port;
    this.url = `redis://127.0.0.1:${port}`;
    this.process = new Process('redis', program('redis-server'), [
      path.join(ROOT, 'deploy/redis/redis.conf'), '--port', String(port), '--bind', '127.0.0.1', '--dir', folder,
    ], { log });
  }

  async start() {
    this.process.start();
    await until(() => new Promise((resolve) => {
      const probe = net.connect(this.port, '127.0.0.1', () => { probe.end(); resolve(true); });
      probe.on('error', () => resolve(false));
    }), { ms: 10_000, what: 'Redis to listen' });
  }

  stop(signal) {
    return this.process.stop(signal);
  }

  async restart(signal) {
    await this.stop(signal);
    await this.start();
  }
}
