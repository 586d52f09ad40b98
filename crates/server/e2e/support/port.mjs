// Needs no packages: what only runs servers takes it too.

import { randomInt } from 'node:crypto';
import net from 'node:net';

/**
 * Below what the kernel gives to connections that go out (`ip_local_port_range`, from 32768 on): a port that is found
 * there is not somebody's a moment later, nor when a server that was killed comes back to it.
 */
const RANGE = [15_000, 32_000];
const TRIES = 100;

/** A port that nobody listens on. */
export async function freePort() {
  for (let n = 0; n < TRIES; n += 1) {
    const port = randomInt(...RANGE);
    const free = await new Promise((resolve) => {
      const probe = net.createServer();
      probe.once('error', () => resolve(false));
      probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
    });
    if (free) return port;
  }
  throw new Error(`no port is free between ${RANGE.join(' and ')}`);
}
