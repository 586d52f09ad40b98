// A TCP proxy before PostgreSQL that tests cut and mend.

import { once } from 'node:events';
import net from 'node:net';

export async function startProxy(databaseUrl) {
  const target = new URL(databaseUrl);
  const upstream = { host: target.hostname, port: Number(target.port || 5432) };
  const pairs = new Set();
  let mode = 'open';

  const listener = net.createServer((client) => {
    if (mode === 'cut') return client.destroy();
    const server = net.connect(upstream);
    const pair = [client, server];
    pairs.add(pair);
    for (const [from, to] of [[client, server], [server, client]]) {
      from.pipe(to);
      from.on('error', () => {});
      from.on('close', () => {
        to.destroy();
        pairs.delete(pair);
      });
    }
    if (mode === 'silent') hush(pair);
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  target.hostname = '127.0.0.1';
  target.port = listener.address().port;

  const destroyAll = () => pairs.forEach((pair) => pair.forEach((socket) => socket.destroy()));
  return {
    url: target.href,
    /** Every connection breaks, and new ones break at once. */
    cut() {
      mode = 'cut';
      destroyAll();
    },
    /** Connections stay open, and nothing passes any more. */
    silence() {
      mode = 'silent';
      pairs.forEach(hush);
    },
    mend() {
      mode = 'open';
      destroyAll();
    },
    async close() {
      destroyAll();
      if (listener.listening) await new Promise((done) => listener.close(done));
    },
  };
}

function hush([client, server]) {
  client.unpipe(server);
  server.unpipe(client);
  // Flowing without a destination: the bytes are read and lost.
  client.resume();
  server.resume();
}
