// A Socket.IO server in Node.js as it comes, on the Redis of a fleet: what it asks and tells by the adapter is for Starling.

import { once } from 'node:events';
import http from 'node:http';
import { Emitter } from '@socket.io/redis-emitter';
import { createAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';

export async function startNodeServer(redisUrl, options = {}) {
  const pub = createClient({ url: redisUrl });
  const sub = pub.duplicate();
  const clients = [pub, sub];
  clients.forEach((client) => client.on('error', () => {}));
  await Promise.all(clients.map((client) => client.connect()));
  const server = http.createServer();
  const io = new Server(server, { adapter: createAdapter(pub, sub, options) });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    io,
    pub,
    emitter: new Emitter(pub),
    url: `http://127.0.0.1:${server.address().port}`,
    async close() {
      server.closeAllConnections();
      server.close();
      // What is under way is let finish.
      await Promise.all(clients.map((client) => client.close()));
    },
  };
}
